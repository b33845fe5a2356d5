/* SPDX-License-Identifier: MIT */
/*
 * Decoded by capstone.  The code is read from our own memory: victims are forked from this process, and have the same modules at the same
 * addresses.  In Intel's order of operands an instruction writes to its first one, or, as xchg does, to several; so a memory operand that is not
 * the first of several is only read, but for these.  Stack, thread-local and module data are private, whatever is written.
 */
#define _GNU_SOURCE
#include "visible.h"
#include "quiet.h"

#include <stdio.h>
#include <stdlib.h>

#ifdef __x86_64__

#include <capstone/capstone.h>
#include <sys/ptrace.h>
#include <sys/user.h>

enum { LONGEST_INSTRUCTION = 15, RANGES_MOST = 256 };

/* Where shared memory is mapped, as of the last system call. */
static struct {
    pid_t pid;
    unsigned count;
    struct {
        uint64_t from, to;
    } at[RANGES_MOST];
} shared;

static void read_ranges(pid_t pid)
{
    char path[64], line[512], mode[8];
    snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
    FILE *maps = fopen(path, "re");
    shared.pid = pid;
    shared.count = maps != NULL ? 0 : RANGES_MOST;
    while (maps != NULL && shared.count < RANGES_MOST && fgets(line, sizeof line, maps) != NULL)
        if (sscanf(line, "%lx-%lx %7s", &shared.at[shared.count].from, &shared.at[shared.count].to, mode) ==
                3 &&
            mode[1] == 'w' && mode[3] == 's')
            shared.count++;
    if (maps != NULL)
        fclose(maps);
}

/* Then anything may be shared. */
static bool are_ranges_unknown(void)
{
    return shared.count == RANGES_MOST;
}

bool visible_is_shared(uint64_t address, uint64_t bytes)
{
    for (unsigned i = 0; i < shared.count; i++)
        if (address < shared.at[i].from ? shared.at[i].from - address < bytes : address < shared.at[i].to)
            return true;
    return are_ranges_unknown();
}

/* NULL: not one that addresses are made of. */
static const unsigned long long *find_register(const struct user_regs_struct *r, x86_reg name)
{
    const struct {
        x86_reg name;
        const unsigned long long *value;
    } all[] = {
        {X86_REG_RAX, &r->rax}, {X86_REG_RBX, &r->rbx}, {X86_REG_RCX, &r->rcx}, {X86_REG_RDX, &r->rdx},
        {X86_REG_RSI, &r->rsi}, {X86_REG_RDI, &r->rdi}, {X86_REG_RBP, &r->rbp}, {X86_REG_RSP, &r->rsp},
        {X86_REG_R8, &r->r8},   {X86_REG_R9, &r->r9},   {X86_REG_R10, &r->r10}, {X86_REG_R11, &r->r11},
        {X86_REG_R12, &r->r12}, {X86_REG_R13, &r->r13}, {X86_REG_R14, &r->r14}, {X86_REG_R15, &r->r15}};
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i].name == name)
            return all[i].value;
    return NULL;
}

static bool writes_to_shared(pid_t pid, const cs_x86_op *operand)
{
    struct user_regs_struct registers;
    uint64_t address = (uint64_t)operand->mem.disp;
    if (ptrace(PTRACE_GETREGS, pid, NULL, &registers) != 0)
        return true;
    if (operand->mem.base != X86_REG_INVALID) {
        const unsigned long long *base = find_register(&registers, operand->mem.base);
        if (base == NULL)
            return true;
        address += *base;
    }
    if (operand->mem.index != X86_REG_INVALID) {
        const unsigned long long *index = find_register(&registers, operand->mem.index);
        if (index == NULL)
            return true;
        address += *index * (unsigned long long)operand->mem.scale;
    }
    return visible_is_shared(address, operand->size);
}

static bool is_private(const cs_x86_op *operand)
{
    return operand->mem.segment == X86_REG_FS || operand->mem.base == X86_REG_RIP ||
           operand->mem.base == X86_REG_RSP;
}

static bool only_reads(const cs_insn *instruction, unsigned operand)
{
    switch (instruction->id) {
    case X86_INS_CMP:
    case X86_INS_TEST:
    case X86_INS_LEA:
    case X86_INS_NOP:
        return true;
    case X86_INS_XCHG:
    case X86_INS_XADD:
        return false;
    default:
        return operand > 0;
    }
}

static bool is_noticed(pid_t pid, const cs_insn *instruction)
{
    const cs_x86 *detail = &instruction->detail->x86;
    for (unsigned i = 0; i < detail->op_count; i++) {
        const cs_x86_op *operand = &detail->operands[i];
        if (operand->type == X86_OP_MEM && !only_reads(instruction, i) && !is_private(operand) &&
            writes_to_shared(pid, operand))
            return true;
    }
    return false;
}

static cs_insn *decoder(csh *ret_handle)
{
    static csh handle;
    static cs_insn *instruction;
    if (instruction == NULL) {
        if (cs_open(CS_ARCH_X86, CS_MODE_64, &handle) != CS_ERR_OK)
            abort();
        cs_option(handle, CS_OPT_DETAIL, CS_OPT_ON);
        instruction = cs_malloc(handle);
    }
    *ret_handle = handle;
    return instruction;
}

static bool after_system_call;

enum visible visible_next(pid_t pid, uint64_t ip)
{
    csh handle;
    cs_insn *instruction = decoder(&handle);
    const uint8_t *code = (const uint8_t *)(uintptr_t)ip; /* NOLINT(performance-no-int-to-ptr) */
    size_t left = LONGEST_INSTRUCTION;
    uint64_t address = ip;
    if (shared.pid != pid || after_system_call)
        read_ranges(pid);
    after_system_call = false;
    if (ip == 0 || !cs_disasm_iter(handle, &code, &left, &address, instruction))
        return VISIBLE_IN_DOUBT;
    if (instruction->id == X86_INS_SYSCALL) {
        after_system_call = true;
        quiet_enter(pid);
        return VISIBLE_YES;
    }
    if (!is_noticed(pid, instruction))
        return VISIBLE_NO;
    return are_ranges_unknown() ? VISIBLE_IN_DOUBT : VISIBLE_YES;
}

enum visible visible_after(pid_t pid, enum visible before)
{
    return after_system_call && quiet_leave(pid) ? VISIBLE_NO : before;
}

#else

enum visible visible_next(pid_t pid, uint64_t ip)
{
    (void)pid, (void)ip;
    return VISIBLE_YES;
}

enum visible visible_after(pid_t pid, enum visible before)
{
    (void)pid;
    return before;
}

bool visible_is_shared(uint64_t address, uint64_t bytes)
{
    (void)address, (void)bytes;
    return true;
}

#endif
