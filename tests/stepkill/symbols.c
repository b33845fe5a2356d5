/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "symbols.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { STACK_WORDS = 1024, CALLERS = 6, STOP_WAIT_MS = 200 };

struct image {
    const unsigned char *bytes;
    size_t size;
};

static struct image map_image(const char *path)
{
    struct image image = {NULL, 0};
    struct stat info;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return image;
    if (fstat(fd, &info) == 0 && info.st_size > (off_t)sizeof(Elf64_Ehdr)) {
        void *bytes = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (bytes != MAP_FAILED)
            image = (struct image){bytes, (size_t)info.st_size};
    }
    close(fd);
    return image;
}

/* The last function of this table that starts at or below the address. */
static const char *search_table(struct image image, const Elf64_Shdr *sections, const Elf64_Shdr *table,
                                uint64_t address, uint64_t *ret_offset)
{
    const Elf64_Sym *symbols = (const void *)(image.bytes + table->sh_offset);
    const char *names = (const char *)image.bytes + sections[table->sh_link].sh_offset;
    const Elf64_Sym *best = NULL;
    for (size_t i = 0; i < table->sh_size / sizeof *symbols; i++) {
        const Elf64_Sym *s = &symbols[i];
        if (ELF64_ST_TYPE(s->st_info) != STT_FUNC || s->st_shndx == SHN_UNDEF || s->st_value > address)
            continue;
        if (best == NULL || s->st_value > best->st_value)
            best = s;
    }
    if (best == NULL || (best->st_size != 0 && address >= best->st_value + best->st_size))
        return NULL;
    *ret_offset = address - best->st_value;
    return names + best->st_name;
}

static const char *search_image(struct image image, uint64_t address, uint64_t base, uint64_t *ret_offset)
{
    const Elf64_Ehdr *header = (const void *)image.bytes;
    const Elf64_Shdr *sections = (const void *)(image.bytes + header->e_shoff);
    const char *name = NULL;
    if (header->e_shoff == 0 || header->e_shoff + header->e_shnum * sizeof *sections > image.size)
        return NULL;
    if (header->e_type == ET_DYN)
        address -= base;
    for (unsigned i = 0; i < header->e_shnum && name == NULL; i++)
        if (sections[i].sh_type == SHT_SYMTAB || sections[i].sh_type == SHT_DYNSYM)
            name = search_table(image, sections, &sections[i], address, ret_offset);
    return name;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL ? path : slash + 1;
}

void symbol_print(char *text, size_t size, uint64_t address)
{
    Dl_info info;
    uint64_t offset = 0;
    if (dladdr((const void *)(uintptr_t)address, &info) == 0 || info.dli_fname == NULL) {
        snprintf(text, size, "0x%llx", (unsigned long long)address);
        return;
    }
    const uint64_t base = (uint64_t)(uintptr_t)info.dli_fbase;
    const bool is_main = strchr(base_name(info.dli_fname), '.') == NULL;
    struct image image = map_image(is_main ? "/proc/self/exe" : info.dli_fname);
    const char *name = image.bytes == NULL ? NULL : search_image(image, address, base, &offset);
    if (name != NULL)
        snprintf(text, size, "%s+0x%llx", name, (unsigned long long)offset);
    else
        snprintf(text, size, "%s+0x%llx", base_name(info.dli_fname), (unsigned long long)(address - base));
    if (image.bytes != NULL)
        munmap((void *)(uintptr_t)image.bytes, image.size);
}

#ifdef __x86_64__

/* Does the word look like the return address of a call made outside the C library? */
static bool is_return_address(uint64_t word)
{
    Dl_info info;
    if (word < 4096 || dladdr((const void *)(uintptr_t)word, &info) == 0 || info.dli_fname == NULL)
        return false;
    const char *file = base_name(info.dli_fname);
    if (strncmp(file, "libc.", 5) == 0 || strncmp(file, "ld-", 3) == 0 || strncmp(file, "linux-", 6) == 0)
        return false;
    if (word - (uint64_t)(uintptr_t)info.dli_fbase < 4096)
        return false;
    unsigned char before[6];
    const struct iovec here = {before, sizeof before};
    const struct iovec there = {(void *)(uintptr_t)(word - sizeof before), sizeof before};
    if (process_vm_readv(getpid(), &here, 1, &there, 1, 0) != (ssize_t)sizeof before)
        return false;
    return before[1] == 0xE8 || before[4] == 0xFF || before[3] == 0xFF || before[0] == 0xFF;
}

static void print_stack(char *text, size_t size, pid_t pid, const struct user_regs_struct *regs)
{
    uint64_t words[STACK_WORDS];
    char name[160];
    int callers = 0;
    symbol_print(name, sizeof name, regs->rip);
    size_t used = (size_t)snprintf(text, size, "%s", name);
    const struct iovec here = {words, sizeof words};
    const struct iovec there = {(void *)(uintptr_t)regs->rsp, sizeof words};
    const ssize_t got = process_vm_readv(pid, &here, 1, &there, 1, 0);
    for (size_t i = 0; got > 0 && i < (size_t)got / sizeof *words && callers < CALLERS; i++) {
        if (!is_return_address(words[i]) || used >= size)
            continue;
        symbol_print(name, sizeof name, words[i] - 1);
        if (strncmp(name, "be_driver+", 10) == 0)
            break;
        used += (size_t)snprintf(text + used, size - used, " < %s", name);
        callers++;
    }
}

/* Not for ever: a process in an uninterruptible wait does not stop. */
static bool stop_soon(pid_t pid)
{
    const struct timespec millisecond = {0, 1000000};
    int status;
    ptrace(PTRACE_INTERRUPT, pid, NULL, NULL);
    for (int ms = 0; ms < STOP_WAIT_MS; ms++) {
        const pid_t got = waitpid(pid, &status, __WALL | WNOHANG);
        if (got != 0)
            return got == pid && WIFSTOPPED(status);
        nanosleep(&millisecond, NULL);
    }
    return false;
}

void process_print_where(char *text, size_t size, pid_t pid)
{
    struct user_regs_struct regs;
    if (ptrace(PTRACE_SEIZE, pid, NULL, NULL) != 0) {
        snprintf(text, size, "somewhere (%s)", strerror(errno));
        return;
    }
    if (stop_soon(pid) && ptrace(PTRACE_GETREGS, pid, NULL, &regs) == 0)
        print_stack(text, size, pid, &regs);
    else
        snprintf(text, size, "somewhere (it does not stop)");
    ptrace(PTRACE_DETACH, pid, NULL, NULL);
}

#else

void process_print_where(char *text, size_t size, pid_t pid)
{
    snprintf(text, size, "somewhere (pid %d)", (int)pid);
}

#endif
