# SPDX-License-Identifier: GPL-2.0
#
# Completion of lbctl for fish. As for bash, everything is read from --help and from the running
# system; what cannot be read completes to nothing, without a word.

# What --help calls the value of an option of the verb; nothing if it takes none.
function __lbctl_value_of --argument-names option
    lbctl $__lbctl_verb --help 2>/dev/null | sed -n \
        -e "s/^  \(-., \| *\)$option \([^ ]\{1,\}\) .*/\2/p" \
        -e "s/^  $option, --[a-z-]\{1,\} \([^ ]\{1,\}\) .*/\1/p" | head -n 1
end

# Every value of a field of a listing.
function __lbctl_listed --argument-names field
    lbctl $__lbctl_globals $argv[2..-1] -o json 2>/dev/null |
        sed -n "s/.*\"$field\":\"\([^\"]*\)\".*/\1/p"
end

# The candidates for what --help calls $kind.
function __lbctl_values --argument-names kind
    switch $kind
        case '*|*'
            string split '|' -- $kind
        case 'DEV*'
            command ls /sys/class/net 2>/dev/null
        case DIR
            __fish_complete_directories (commandline -ct)
        case 'FILE*'
            __fish_complete_path (commandline -ct)
        case SERVICE
            test "$__lbctl_verb[1..2]" = 'services add'
            or __lbctl_listed service services list
        case 'ADDR*'
            test "$__lbctl_verb[1..2]" = 'backends add'
            or __lbctl_listed address backends list $__lbctl_operands[1]
    end
end

function __lbctl_complete
    set -l words (commandline -opc)[2..-1]
    set -l current (commandline -ct)
    set -l names (lbctl --help 2>/dev/null |
        sed -n '/^Commands:/,/^$/ s/^  \([a-z]\{1,\}\( [a-z]\{1,\}\)\{0,1\}\)  .*/\1/p')
    set -l first
    set -l awaiting
    set -g __lbctl_verb
    set -g __lbctl_operands
    set -g __lbctl_globals

    for word in $words
        if test -n "$awaiting"
            test $awaiting = --pin-dir; and set __lbctl_globals --pin-dir $word
            set awaiting
        else if string match -q -- '--pin-dir=*' $word
            set __lbctl_globals $word
        else if string match -q -- '-*' $word
            string match -q -- '*=*' $word
            or test -z "$(__lbctl_value_of $word)"
            or set awaiting $word
        else if test -n "$__lbctl_verb"
            set -a __lbctl_operands $word
        else if contains -- (string join ' ' $first $word) $names
            set __lbctl_verb $first $word
        else
            set first $word
        end
    end

    if test -n "$awaiting"
        __lbctl_values (__lbctl_value_of $awaiting)
    else if string match -q -- '--*=*' $current
        set -l option (string replace -r '=.*' '' -- $current)
        printf "$option=%s\n" (__lbctl_values (__lbctl_value_of $option))
    else if string match -q -- '-*' $current
        lbctl $__lbctl_verb --help 2>/dev/null | sed -n 's/^  .\{4\}\(--[a-z-]*\).*/\1/p'
    else if test -z "$__lbctl_verb"
        set -l group (string join '' $first ' ')
        test -n "$first"; or set group ''
        string replace -rf -- "^$group([a-z]+).*" '$1' $names | sort -u
    else
        set -l usage (lbctl $__lbctl_verb --help 2>/dev/null | head -n 1)
        set -l kinds (string split -n ' ' -- (string replace -r '.*\[OPTION\]\.\.\.' '' -- $usage))
        set -l kind $kinds[(math (count $__lbctl_operands) + 1)]
        test -n "$kind"; or set kind (string match -- '*...*' $kinds[-1])
        __lbctl_values (string replace -r '^\[?([A-Z]*).*' '$1' -- $kind)
    end
end

complete -c lbctl -f -a '(__lbctl_complete)'
