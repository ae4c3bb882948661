# SPDX-License-Identifier: GPL-2.0
# make [V=1] [WERROR=1] [SANITIZE=1]     make check | check-vm [KERNELS= FULL= XLB_TURN=] | bench | bench-sync
#                                        make install [DESTDIR=] [PREFIX=] | compile_commands.json | clean
#
# One binary: build/lbctl, with the BPF object inside it. Everything that is made is under build/.

PREFIX ?= /usr/local
DESTDIR ?=
B := build

CC ?= gcc
CLANG ?= clang
BPFTOOL ?= $(or $(shell command -v bpftool 2>/dev/null),/usr/sbin/bpftool)
PKG_CONFIG ?= pkg-config
VERSION := $(shell cat VERSION)

Q := $(if $(V),,@)
say = $(if $(V),@:,@printf '  %-8s%s\n')

LIBRARIES := libbpf libxdp libelf zlib libcurl jansson yajl yaml-0.1 libevent libmnl libcap-ng libseccomp
LIBRARY_CFLAGS := $(shell $(PKG_CONFIG) --cflags $(LIBRARIES) 2>/dev/null)
LIBRARY_LIBS := $(shell $(PKG_CONFIG) --libs $(LIBRARIES) 2>/dev/null)

WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition -Wpointer-arith -Wwrite-strings \
	-Wundef -Wvla -Wformat=2 $(if $(WERROR),-Werror)
HARDENING := -fstack-protector-strong -fPIE -D_FORTIFY_SOURCE=2 -fstack-clash-protection -fcf-protection
comma := ,
SANITIZERS := $(if $(SANITIZE),-fsanitize=address$(comma)undefined -fno-omit-frame-pointer)

CFLAGS ?= -O2 -g
XLB_CFLAGS := -std=gnu11 $(WARNINGS) $(if $(SANITIZE),,$(HARDENING)) $(SANITIZERS) -D_GNU_SOURCE -DXLB_VERSION='"$(VERSION)"' \
	-Iinclude -Iuser -I$(B) $(LIBRARY_CFLAGS)
XLB_LDFLAGS := $(if $(SANITIZE),$(SANITIZERS),-pie -Wl$(comma)-z$(comma)relro$(comma)-z$(comma)now)

# Addresses are written as words of eight bytes and read by parts (the kernel is compiled so, too).
BPF_CFLAGS := -O2 -g -fno-strict-aliasing -target bpf -mcpu=v3 -Wall -Wextra -Wshadow -Wno-address-of-packed-member $(if $(WERROR),-Werror) \
	-Iinclude -I/usr/include/$(shell $(CC) -print-multiarch) $(if $(filter x86_64-%,$(shell $(CC) -dumpmachine)),-DXLB_ORDERED_STORES)

USER_SOURCES := $(sort $(wildcard user/*.c user/*/*.c))
USER_OBJECTS := $(USER_SOURCES:%.c=$(B)/%.o)
LIBRARY_OBJECTS := $(filter-out $(B)/user/main.o,$(USER_OBJECTS))
BPF_SOURCES := $(sort $(wildcard bpf/*.bpf.c))
BPF_OBJECTS := $(BPF_SOURCES:%.c=$(B)/%.o)
UNIT_TESTS := $(patsubst %.c,$(B)/%,$(sort $(wildcard tests/unit/*_test.c)))
BENCHES := $(patsubst %.c,$(B)/%,$(sort $(filter-out %.bpf.c,$(wildcard tests/bench/*.c))))
BENCH_SKELETONS := $(patsubst %.bpf.c,$(B)/%.skel.h,$(sort $(wildcard tests/bench/*.bpf.c)))

.PHONY: all check check-vm bench bench-sync fuzz-packet tests install uninstall clean
.DELETE_ON_ERROR:
.SECONDARY:

all: $(B)/lbctl

# What the flags were, so that a change of them rebuilds; made anew only then, so that make -n and -q know what is left to do.
FLAGS := $(CC) $(CLANG) $(CFLAGS) $(XLB_CFLAGS) $(XLB_LDFLAGS) $(BPF_CFLAGS)
FLAGS_WERE := $(file <$(B)/flags)
$(B)/flags: $(if $(subst <$(FLAGS)>,,<$(FLAGS_WERE)>),FORCE)
	$(Q)mkdir -p $(@D); printf '%s' '$(subst ','\'',$(FLAGS))' >$@
.PHONY: FORCE

$(B)/lbctl: $(USER_OBJECTS)
	$(say) LD $@
	$(Q)$(CC) $(CFLAGS) $(XLB_LDFLAGS) $(LDFLAGS) -o $@ $(USER_OBJECTS) $(LIBRARY_LIBS) $(LDLIBS)

# Skeletons have to be there before the first compiler looks for them; afterwards the .d files know who needs them.
$(B)/user/%.o: user/%.c $(B)/flags | $(B)/xlb.skel.h $(B)/xdp-dispatcher.skel.h
	$(say) CC $<
	$(Q)mkdir -p $(@D); $(CC) $(CFLAGS) $(XLB_CFLAGS) -MMD -MP -c -o $@ $<

$(B)/bpf/%.bpf.o: bpf/%.bpf.c $(B)/flags
	$(say) BPF $<
	$(Q)mkdir -p $(@D); $(CLANG) $(BPF_CFLAGS) -MMD -MP -c -o $@ $<

$(B)/xlb.bpf.o: $(BPF_OBJECTS)
	$(say) LINK $@
	$(Q)$(BPFTOOL) gen object $@ $(BPF_OBJECTS)

$(B)/xlb.skel.h: $(B)/xlb.bpf.o
	$(say) GEN $@
	$(Q)$(BPFTOOL) gen skeleton $< name xlb_bpf >$@.new; mv $@.new $@

# Under the name by which libxdp looks for it.
$(B)/xdp-dispatcher.o: $(B)/bpf/libxdp/xdp-dispatcher.bpf.o
	$(Q)cp $< $@

$(B)/xdp-dispatcher.skel.h: $(B)/xdp-dispatcher.o
	$(say) GEN $@
	$(Q)$(BPFTOOL) gen skeleton $< name xdp_dispatcher >$@.new 2>/dev/null; mv $@.new $@		# it says that it does not know xdp_metadata

# Unit tests link everything but main(). The test worlds need an XDP program for the far ends of veths.
TEST_OBJECTS := $(patsubst %.c,$(B)/%.o,$(sort $(wildcard tests/lib/*.bpf.c)))
tests: $(UNIT_TESTS) $(TEST_OBJECTS) $(B)/tests/fuzz/fuzz $(B)/tests/other/lbctl

# lbctl as another build makes it: the same, but the programs are other instructions. For tests of upgrades.
OTHER := $(B)/tests/other
$(OTHER)/%.bpf.o: bpf/%.bpf.c $(B)/flags
	$(Q)mkdir -p $(@D); $(CLANG) $(BPF_CFLAGS) -Os -MMD -MP -c -o $@ $<

$(OTHER)/xlb.linked.o: $(patsubst bpf/%.c,$(OTHER)/%.o,$(BPF_SOURCES))
	$(Q)$(BPFTOOL) gen object $@ $^

$(OTHER)/xlb.skel.h: $(OTHER)/xlb.linked.o
	$(Q)$(BPFTOOL) gen skeleton $< name xlb_bpf >$@.new; mv $@.new $@

$(OTHER)/lbctl: $(OTHER)/xlb.skel.h user/datapath/load.c $(USER_OBJECTS)
	$(say) LD $@
	$(Q)$(CC) $(CFLAGS) -I$(OTHER) $(XLB_CFLAGS) -c -o $(OTHER)/load.o user/datapath/load.c
	$(Q)$(CC) $(CFLAGS) $(XLB_LDFLAGS) $(LDFLAGS) -o $@ $(filter-out $(B)/user/datapath/load.o,$(USER_OBJECTS)) $(OTHER)/load.o \
		$(LIBRARY_LIBS) $(LDLIBS)

$(B)/tests/lib/%.bpf.o: tests/lib/%.bpf.c $(B)/flags
	$(say) BPF $<
	$(Q)mkdir -p $(@D); $(CLANG) $(BPF_CFLAGS) -MMD -MP -c -o $@ $<

$(B)/tests/unit/%_test: tests/unit/%_test.c $(LIBRARY_OBJECTS) $(B)/flags
	$(say) TEST $<
	$(Q)mkdir -p $(@D); $(CC) $(CFLAGS) $(XLB_CFLAGS) -MMD -MP $(XLB_LDFLAGS) -o $@ $< $(LIBRARY_OBJECTS) -lcmocka $(LIBRARY_LIBS)

$(B)/tests/bench/%.skel.h: tests/bench/%.bpf.c $(B)/flags
	$(say) BPF $<
	$(Q)mkdir -p $(@D); $(CLANG) $(BPF_CFLAGS) -MMD -MP -c -o $(@:.skel.h=.bpf.o) $<
	$(Q)$(BPFTOOL) gen skeleton $(@:.skel.h=.bpf.o) name $(subst -,_,$*)_bpf >$@.new; mv $@.new $@

$(B)/tests/bench/%: tests/bench/%.c $(LIBRARY_OBJECTS) $(BENCH_SKELETONS) $(B)/flags
	$(say) BENCH $<
	$(Q)mkdir -p $(@D); $(CC) $(CFLAGS) $(XLB_CFLAGS) -MMD -MP $(XLB_LDFLAGS) -I. -o $@ $< $(LIBRARY_OBJECTS) $(LIBRARY_LIBS)

check: all tests
	$(Q)scripts/run-tests $(TESTS)

# The same tests under other kernels, in virtual machines: KERNELS="5.10 6.1 6.12 7.2" if none are named; FULL=1: every row on each.
check-vm: all tests
	$(Q)KERNELS='$(KERNELS)' FULL='$(FULL)' XLB_TURN='$(XLB_TURN)' scripts/run-tests vm

bench: all $(BENCHES)
	$(Q)$(B)/tests/bench/packet $(BENCH_FLAGS)

# Random configurations and packets against the reference model: N=1000000 packets, from SEED (the time).
FUZZ_SOURCES := $(sort $(wildcard tests/fuzz/*.c))
$(B)/tests/fuzz/fuzz: $(FUZZ_SOURCES) $(wildcard tests/fuzz/*.h) $(wildcard include/xlb/*.h) $(LIBRARY_OBJECTS) $(B)/xlb.skel.h $(B)/flags
	$(say) FUZZ $@
	$(Q)mkdir -p $(@D); $(CC) $(CFLAGS) $(XLB_CFLAGS) $(XLB_LDFLAGS) -o $@ $(FUZZ_SOURCES) $(LIBRARY_OBJECTS) $(LIBRARY_LIBS)

fuzz-packet: $(B)/tests/fuzz/fuzz
	$(Q)scripts/sandbox $< $(if $(N),-n $(N)) $(if $(SEED),-s $(SEED))

bench-sync: all
	$(Q)tests/bench/sync $(BENCH_FLAGS)

install: all
	$(say) INSTALL $(DESTDIR)$(PREFIX)/sbin/lbctl
	$(Q)install -D -m 755 $(B)/lbctl $(DESTDIR)$(PREFIX)/sbin/lbctl
	$(Q)install -D -m 644 Documentation/lbctl.8 $(DESTDIR)$(PREFIX)/share/man/man8/lbctl.8
	$(Q)install -D -m 644 scripts/completion/lbctl.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/lbctl
	$(Q)install -D -m 644 scripts/completion/lbctl.zsh $(DESTDIR)$(PREFIX)/share/zsh/vendor-completions/_lbctl
	$(Q)install -D -m 644 scripts/completion/lbctl.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/lbctl.fish

uninstall:
	$(Q)rm -f $(DESTDIR)$(PREFIX)/sbin/lbctl $(DESTDIR)$(PREFIX)/share/man/man8/lbctl.8 \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions/lbctl $(DESTDIR)$(PREFIX)/share/zsh/vendor-completions/_lbctl \
		$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/lbctl.fish

compile_commands.json: FORCE
	$(say) GEN $@
	$(Q)scripts/compile-commands $(B) '$(CC) $(CFLAGS) $(subst ','\'',$(XLB_CFLAGS))' '$(CLANG) $(BPF_CFLAGS)' $(USER_SOURCES) $(BPF_SOURCES) >$@

clean:
	$(Q)rm -rf $(B) compile_commands.json

-include $(B)/bpf/libxdp/xdp-dispatcher.bpf.d $(TEST_OBJECTS:.o=.d) $(USER_OBJECTS:.o=.d) $(BPF_OBJECTS:.o=.d) $(patsubst bpf/%.c,$(OTHER)/%.d,$(BPF_SOURCES)) $(UNIT_TESTS:=.d) $(BENCHES:=.d) $(BENCH_SKELETONS:.skel.h=.bpf.d)
