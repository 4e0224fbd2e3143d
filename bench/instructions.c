/* A plugin of QEMU's that counts what an emulated Arm machine executes, apart from what the guests of its KVM do, and
 * from busy waiting for locks.
 *
 * `-plugin instructions.so,counts=FILE`: FILE is there, of the size of `struct shared`; whoever maps or reads it has the
 * counts at any time, and nobody in the machine is asked. Where the machine's kernel is, enters guests and waits is
 * written into it when that is known: it is elsewhere after each boot. Until then all counts as the machine's own.
 *
 * What of QEMU's interface is used is declared here, as of its version 1 (QEMU 6.0 to 9.0; docs/devel/tcg-plugins.rst):
 * Debian has no package with the header.
 */
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define EXPORT __attribute__((visibility("default")))
#define CPUS 64
#define WAITS 4
#define OPTION "counts="
/* Arm Architecture Reference Manual, C6.2: the encoding of ERET. */
#define ERET 0xd69f03e0u

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, void (*)(unsigned int, void *), int, void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);

EXPORT int qemu_plugin_version = 1;

/* A cache line each, so that CPUs do not take it from one another. */
struct cpu {
    uint64_t own, guests, waits, in_guest, unused[4];
};

/* Virtual addresses, without the end. */
struct range {
    volatile uint64_t begin, end;
};

/* instructions.py knows this by heart. */
struct shared {
    struct range kernel, enters, waits[WAITS], unused[2];
    struct cpu cpus[CPUS];
};

struct block {
    uint64_t first, last;
    uint32_t count, returns;
};

static struct shared *shared;

static int within(const struct range *range, uint64_t address)
{
    return address >= range->begin && address < range->end;
}

static int waits(uint64_t address)
{
    for (int i = 0; i < WAITS; i++)
        if (within(&shared->waits[i], address))
            return 1;
    return 0;
}

static void executed(unsigned int cpu, void *data)
{
    const struct block *block = data;
    struct cpu *counts = &shared->cpus[cpu % CPUS];

    /* A guest has a kernel at other addresses (its own KASLR). What is executed after an exit begins in the host's. */
    if (counts->in_guest && within(&shared->kernel, block->first))
        counts->in_guest = 0;
    if (counts->in_guest)
        counts->guests += block->count;
    else if (waits(block->first))
        counts->waits += block->count;
    else
        counts->own += block->count;
    if (block->returns && within(&shared->enters, block->last))
        counts->in_guest = 1;
}

static void translated(plugin_id id, struct qemu_plugin_tb *tb)
{
    size_t count = qemu_plugin_tb_n_insns(tb);
    struct qemu_plugin_insn *last = qemu_plugin_tb_get_insn(tb, count - 1);
    /* Never freed: a measurement ends before that matters. */
    struct block *block = malloc(sizeof *block);
    uint32_t opcode;

    (void)id;
    if (!block)
        abort();
    memcpy(&opcode, qemu_plugin_insn_data(last), sizeof opcode);
    block->first = qemu_plugin_insn_vaddr(qemu_plugin_tb_get_insn(tb, 0));
    block->last = qemu_plugin_insn_vaddr(last);
    block->count = (uint32_t)count;
    block->returns = opcode == ERET;
    qemu_plugin_register_vcpu_tb_exec_cb(tb, executed, 0, block);
}

EXPORT int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
    int file;

    (void)info;
    if (argc != 1 || strncmp(argv[0], OPTION, strlen(OPTION)) != 0)
        return -1;
    file = open(argv[0] + strlen(OPTION), O_RDWR | O_CLOEXEC);
    if (file < 0)
        return -1;
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (shared == MAP_FAILED)
        return -1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    return 0;
}
