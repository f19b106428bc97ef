"""Pictures and facts of a build, for people."""
