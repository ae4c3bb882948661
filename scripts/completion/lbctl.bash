# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Completion of lbctl for bash. Commands, options and their values are read from --help, so that
# this file knows none of them; devices, services and backends come from the running system.
# Whatever cannot be read completes to nothing, without a word.

# __lbctl_help COMMAND...: what --help prints.
__lbctl_help()
{
	"$__lbctl" "$@" --help 2>/dev/null
}

# The names of commands, one a line: "attach", "services list".
__lbctl_commands()
{
	__lbctl_help |
		sed -n '/^Commands:/,/^$/ s/^  \([a-z]\{1,\}\( [a-z]\{1,\}\)\{0,1\}\)  .*/\1/p'
}

# Every "service" of the listing; or every "address", of one service.
__lbctl_listed()
{
	"$__lbctl" "${__lbctl_globals[@]}" "$@" -o json 2>/dev/null |
		sed -n "s/.*\"$__lbctl_field\":\"\([^\"]*\)\".*/\1/p"
}

# __lbctl_values KIND: candidates for what --help calls KIND; $__lbctl_verb is known.
__lbctl_values()
{
	case $1 in
	*'|'*) tr '|' '\n' <<<"$1" ;;
	DEV*) ls /sys/class/net 2>/dev/null ;;
	DIR | FILE*) compgen -f -- "$__lbctl_current" ;;
	SERVICE)
		[[ $__lbctl_verb == "services add" ]] && return
		__lbctl_field=service __lbctl_listed services list ;;
	ADDR*)
		[[ $__lbctl_verb == "backends add" ]] && return
		__lbctl_field=address __lbctl_listed backends list "${__lbctl_operands[0]}" ;;
	esac
}

# What the value of an option is called: "-m" -> "auto|native|generic"; "" if it has none.
__lbctl_value_of()
{
	# shellcheck disable=SC2086 # the verb is one word or two
	__lbctl_help $__lbctl_verb | sed -n -e "s/^  \(-., \| *\)$1 \([^ ]\{1,\}\) .*/\2/p" \
		-e "s/^  $1, --[a-z-]\{1,\} \([^ ]\{1,\}\) .*/\1/p" | head -n 1
}

# Reads the words before the current one: the verb, its operands, and the option that wants a value.
__lbctl_parse()
{
	local word first="" awaiting=""

	__lbctl_verb="" __lbctl_pending="" __lbctl_operands=() __lbctl_globals=()
	for word in "$@"; do
		if [[ $awaiting ]]; then
			[[ $awaiting == --pin-dir ]] && __lbctl_globals=(--pin-dir "$word")
			awaiting=""
		elif [[ $word == --pin-dir=* ]]; then
			__lbctl_globals=("$word")
		elif [[ $word == -* ]]; then
			[[ $word != *=* && $(__lbctl_value_of "$word") ]] && awaiting=$word
		elif [[ $__lbctl_verb ]]; then
			__lbctl_operands+=("$word")
		elif grep -qxF -- "${first:+$first }$word" <<<"$__lbctl_names"; then
			__lbctl_verb="${first:+$first }$word"
		else
			first=$word
		fi
	done
	__lbctl_pending=$awaiting __lbctl_group=$first
}

__lbctl_candidates()
{
	local usage kinds

	if [[ $__lbctl_pending ]]; then
		__lbctl_values "$(__lbctl_value_of "$__lbctl_pending")"
	elif [[ $__lbctl_current == --*=* ]]; then
		__lbctl_values "$(__lbctl_value_of "${__lbctl_current%%=*}")" |
			sed "s/^/${__lbctl_current%%=*}=/"
	elif [[ $__lbctl_current == -* ]]; then
		# shellcheck disable=SC2086 # the verb is one word or two
		__lbctl_help $__lbctl_verb | sed -n 's/^  .\{4\}\(--[a-z-]*\).*/\1/p'
	elif [[ -z $__lbctl_verb ]]; then
		sed -n "s/^${__lbctl_group:+$__lbctl_group }\([a-z]*\).*/\1/p" <<<"$__lbctl_names" |
			sort -u
	elif [[ $__lbctl_verb == help ]]; then
		sed -n "s/^${__lbctl_operands[0]:+${__lbctl_operands[0]} }\([a-z]*\).*/\1/p" \
			<<<"$__lbctl_names" | sort -u
	else
		# shellcheck disable=SC2086 # the verb is one word or two
		usage=$(__lbctl_help $__lbctl_verb | head -n 1)
		read -ra kinds <<<"${usage#*\[OPTION\]...}"
		usage=${kinds[${#__lbctl_operands[@]}]:-${kinds[*]: -1}}
		[[ ${kinds[${#__lbctl_operands[@]}]} || $usage == *...* ]] || return
		usage=${usage#\[}
		__lbctl_values "${usage%%[].]*}"
	fi
}

_lbctl()
{
	local line=${COMP_LINE:0:COMP_POINT} words candidate prefix
	local __lbctl=${COMP_WORDS[0]} __lbctl_names __lbctl_verb __lbctl_group __lbctl_pending
	local __lbctl_current __lbctl_operands __lbctl_globals __lbctl_field

	COMPREPLY=()
	# Not COMP_WORDS: bash cuts those at colons, which addresses are full of.
	read -ra words <<<"$line"
	[[ $line == *[[:space:]] ]] && words+=("")
	__lbctl_current=${words[-1]}
	__lbctl_names=$(__lbctl_commands)
	__lbctl_parse "${words[@]:1:${#words[@]}-2}"

	# bash replaces only what follows the last of the characters that cut words.
	prefix=""
	case $COMP_WORDBREAKS,$__lbctl_current in
	*[:=]*,*[:=]*) prefix=${__lbctl_current%"${__lbctl_current##*[:=]}"} ;;
	esac
	while read -r candidate; do
		[[ $candidate == "$__lbctl_current"* ]] && COMPREPLY+=("${candidate#"$prefix"}")
	done < <(__lbctl_candidates)
}

complete -F _lbctl lbctl
