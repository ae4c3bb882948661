// SPDX-License-Identifier: GPL-2.0
/*
 * Instructions that the running kernel does not know.
 *
 * Linux before 5.12 refuses a program in which an atomic instruction with a result stands, also
 * where it is never reached (bpf/atomic.h); before 5.13 also one that takes the address of a function
 * (the timer's, in bpf/mirror.h). There the object is loaded from a copy, in which the former do
 * nothing, and the latter call the function, so that all there is still belongs to something.
 */
#include <elf.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <linux/bpf.h>

#include "datapath/internal.h"

#define NOTHING ((struct bpf_insn){ .code = BPF_JMP | BPF_JA })
#define WIDE (BPF_LD | BPF_IMM | BPF_DW) /* takes the place of two */

bool kernel_has_atomics(void)
{
	const struct bpf_insn program[] = {
		{ .code = BPF_ST | BPF_MEM | BPF_DW, .dst_reg = 10, .off = -8 },
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = 1 },
		{ .code = BPF_STX | BPF_ATOMIC | BPF_DW,
		  .dst_reg = 10,
		  .off = -8,
		  .imm = BPF_ADD | BPF_FETCH },
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0 },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	_cleanup_(close_fd) int fd = bpf_prog_load(BPF_PROG_TYPE_XDP, "xlb_probe", "GPL", program,
						   sizeof(program) / sizeof(*program), NULL);

	return fd >= 0;
}

/* All that a kernel before 5.12 knows is adding without a result. */
static bool is_new_atomic(const struct bpf_insn *instruction)
{
	return BPF_CLASS(instruction->code) == BPF_STX &&
	       BPF_MODE(instruction->code) == BPF_ATOMIC && instruction->imm != BPF_ADD;
}

static void section_clear(struct bpf_insn *instruction, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (instruction[i].code == WIDE)
			i++;
		else if (is_new_atomic(&instruction[i]))
			instruction[i] = NOTHING;
	}
}

/*
 * An instruction that gets the address of a function, as a call: what stands in it is where the
 * function begins in its section, in bytes; a call counts instructions, from the next one.
 */
static void address_to_call(struct bpf_insn *instruction)
{
	if (instruction->code != WIDE)
		return;
	instruction[0] = (struct bpf_insn){
		.code = BPF_JMP | BPF_CALL,
		.src_reg = BPF_PSEUDO_CALL,
		.imm = instruction->imm / (int)sizeof(*instruction) - 1,
	};
	instruction[1] = NOTHING;
}

/* What one section's relocations say of references to sections with code. */
static void references_clear(char *object, const Elf64_Shdr *sections, const Elf64_Shdr *relocations)
{
	const Elf64_Rel *relocation = (const Elf64_Rel *)(object + relocations->sh_offset);
	const Elf64_Sym *symbols =
		(const Elf64_Sym *)(object + sections[relocations->sh_link].sh_offset);
	char *code = object + sections[relocations->sh_info].sh_offset;

	for (size_t i = 0; i < relocations->sh_size / sizeof(*relocation); i++) {
		const Elf64_Sym *symbol = &symbols[ELF64_R_SYM(relocation[i].r_info)];

		if (symbol->st_shndx < SHN_LORESERVE &&
		    sections[symbol->st_shndx].sh_flags & SHF_EXECINSTR)
			address_to_call((struct bpf_insn *)(code + relocation[i].r_offset));
	}
}

void *object_for_old_kernels(const void *object, size_t size)
{
	char *copy = malloc(size);
	const Elf64_Shdr *sections;
	const Elf64_Ehdr *header;

	if (!copy)
		return NULL;
	memcpy(copy, object, size);
	header = (const Elf64_Ehdr *)copy;
	sections = (const Elf64_Shdr *)(copy + header->e_shoff);
	for (size_t i = 0; i < header->e_shnum; i++) {
		const Elf64_Shdr *section = &sections[i];

		if (section->sh_flags & SHF_EXECINSTR)
			section_clear((struct bpf_insn *)(copy + section->sh_offset),
				      section->sh_size / sizeof(struct bpf_insn));
		else if (section->sh_type == SHT_REL &&
			 sections[section->sh_info].sh_flags & SHF_EXECINSTR)
			references_clear(copy, sections, section);
	}
	return copy;
}
