/* A TCG plugin for QEMU: counts instructions per block like probe.c, into a file that Python maps as well.
 *
 * The few functions of QEMU's stable plugin interface are declared here, so that its header is not needed.
 */
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SHELL = 0, SITE = 1, KERNEL = 2, KINDS = 5 }; /* as in probe.c */

#define ENTRY 0x80u /* of a kernel's first halfword in `kind` */

/* The head of the file; kind [halfwords], padded to whole words, executed [halfwords] and the log follow. */
typedef struct {
  uint64_t base, halfwords; /* of the code */
  uint64_t phases[KINDS];
  uint64_t phase;           /* to which a KERNEL's instructions belong */
  uint64_t before;          /* kind of the last block */
  uint64_t logged, capacity; /* entries of the log, and how many fit */
} counts_t;

/* A kernel that a SITE function called, and the instructions of all but the SHELL until then. */
typedef struct {
  uint64_t address, instructions;
} entry_t;

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_info;

extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id,
                                                  void (*callback)(qemu_plugin_id_t, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb, void (*callback)(unsigned, void *), int flags,
                                                 void *user);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
extern uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);

int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info *info, int argc, char **argv);
extern int qemu_plugin_version;
int qemu_plugin_version = PLUGIN_VERSION;

static counts_t *counts;
static uint8_t *kinds;
static uint64_t *executed;
static entry_t *entries;

/* user: instructions << 40 | index of the first halfword */
static void block(unsigned cpu, void *user) {
  const uint64_t n = (uint64_t)(uintptr_t)user >> 40, at = (uintptr_t)user & 0xFFFFFFFFFFu;
  const uint8_t kind = kinds[at] & 0x7Fu;
  (void)cpu;
  if ((kinds[at] & ENTRY) != 0 && counts->before == SITE && counts->logged < counts->capacity) {
    entry_t *e = &entries[counts->logged++];
    e->address = counts->base + 2 * at, e->instructions = 0;
    for (int i = SITE; i < KINDS; ++i) e->instructions += counts->phases[i];
  }
  counts->before = kind;
  if (kind != SHELL && kind != KERNEL) counts->phase = kind;
  counts->phases[kind == SHELL ? SHELL : counts->phase] += n;
  executed[at] += n;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
  const uint64_t at = (qemu_plugin_tb_vaddr(tb) - counts->base) >> 1, n = qemu_plugin_tb_n_insns(tb);
  (void)id;
  if (at < counts->halfwords) qemu_plugin_register_vcpu_tb_exec_cb(tb, block, 0, (void *)(uintptr_t)(n << 40 | at));
}

/* argv[0]: counts=FILE */
int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info *info, int argc, char **argv) {
  struct stat facts;
  (void)info;
  const int file = argc == 1 ? open(strchr(argv[0], '=') + 1, O_RDWR) : -1;
  if (file < 0 || fstat(file, &facts) != 0) return 1;
  void *mapped = mmap(NULL, (size_t)facts.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (mapped == MAP_FAILED) return 1;
  close(file);
  counts = (counts_t *)mapped;
  kinds = (uint8_t *)(counts + 1);
  executed = (uint64_t *)(void *)(kinds + ((counts->halfwords + 7u) & ~(uint64_t)7u));
  entries = (entry_t *)(executed + counts->halfwords);
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  return 0;
}
