"""The two kinds of failure a user can cause; the command line maps them to exit codes."""


class McugradError(Exception):
    """The user's input is wrong (exit code 1).  The message says what is wrong, where, and what to do."""


class BudgetError(McugradError):
    """The result does not fit the budget (exit code 3).  The message says by how much and what would make it fit.

    needed: bytes that would do, where they are known.
    """

    def __init__(self, message: str, needed: int | None = None) -> None:
        super().__init__(message)
        self.needed = needed
