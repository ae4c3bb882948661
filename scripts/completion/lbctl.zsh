#compdef lbctl
# SPDX-License-Identifier: GPL-2.0
#
# Completion of lbctl for zsh. As for bash, everything is read from --help and from the running
# system; what cannot be read completes to nothing, without a word.

# What --help calls the value of an option of the verb; "" if it takes none.
__lbctl_value_of() {
	$lbctl ${=verb} --help 2>/dev/null | sed -n -e "s/^  \(-., \| *\)$1 \([^ ]\{1,\}\) .*/\2/p" \
		-e "s/^  $1, --[a-z-]\{1,\} \([^ ]\{1,\}\) .*/\1/p" | head -n 1
}

# Every value of a field of a listing.
__lbctl_listed() {
	local field=$1
	shift
	$lbctl $globals "$@" -o json 2>/dev/null | sed -n "s/.*\"$field\":\"\([^\"]*\)\".*/\1/p"
}

# Adds the candidates for what --help calls $1.
__lbctl_values() {
	case $1 in
	*'|'*) compadd -- ${(s:|:)1} ;;
	DEV*) compadd -- /sys/class/net/*(N:t) ;;
	DIR) _files -/ ;;
	FILE*) _files ;;
	SERVICE) [[ $verb == 'services add' ]] ||
		compadd -- ${(f)"$(__lbctl_listed service services list)"} ;;
	ADDR*) [[ $verb == 'backends add' ]] ||
		compadd -- ${(f)"$(__lbctl_listed address backends list $operands[1])"} ;;
	esac
}

_lbctl() {
	local lbctl=$words[1] word awaiting='' first='' verb='' usage kind
	local -a names operands globals kinds

	names=(${(f)"$($lbctl --help 2>/dev/null |
		sed -n '/^Commands:/,/^$/ s/^  \([a-z]\{1,\}\( [a-z]\{1,\}\)\{0,1\}\)  .*/\1/p')"})
	for word in "${(@)words[2,CURRENT-1]}"; do
		if [[ -n $awaiting ]]; then
			[[ $awaiting == --pin-dir ]] && globals=(--pin-dir $word)
			awaiting=''
		elif [[ $word == --pin-dir=* ]]; then
			globals=($word)
		elif [[ $word == -* ]]; then
			[[ $word != *=* && -n $(__lbctl_value_of $word) ]] && awaiting=$word
		elif [[ -n $verb ]]; then
			operands+=($word)
		elif (( $names[(Ie)${first:+$first }$word] )); then
			verb="${first:+$first }$word"
		else
			first=$word
		fi
	done

	if [[ -n $awaiting ]]; then
		__lbctl_values "$(__lbctl_value_of $awaiting)"
	elif [[ $PREFIX == --*=* ]]; then
		kind=$(__lbctl_value_of ${PREFIX%%=*})
		compset -P '*='
		__lbctl_values $kind
	elif [[ $PREFIX == -* ]]; then
		compadd -- ${(f)"$($lbctl ${=verb} --help 2>/dev/null |
			sed -n 's/^  .\{4\}\(--[a-z-]*\).*/\1/p')"}
	elif [[ -z $verb ]]; then
		compadd -- ${(u)${${(M)names:#${first:+$first }*}#${first:+$first }}%% *}
	else
		usage=${"$($lbctl ${=verb} --help 2>/dev/null)"%%$'\n'*}
		kinds=(${=usage#*\[OPTION\]...})
		kind=${kinds[$#operands+1]:-${(M)kinds[-1]:#*...*}}
		__lbctl_values ${${kind#\[}%%[].\[]*}
	fi
}

_lbctl "$@"
