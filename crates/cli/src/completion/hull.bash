# bash completion for @PROGRAM@: the words are asked of the program itself, which knows its commands, flags and the engine.

_@PROGRAM@() {
    local rest=${COMP_LINE:0:COMP_POINT} words=() directive=0 strip='' breaks='' i gap word line
    # bash breaks words at colons and equals signs, too; what had no space between is one word.
    for ((i = 0; i <= COMP_CWORD; i++)); do
        gap=${rest%%[![:space:]]*}
        rest=${rest#"$gap"}
        word=${COMP_WORDS[i]}
        ((i < COMP_CWORD)) || word=$rest
        if [[ -n $gap || $i -eq 0 ]]; then
            words+=("$word")
        else
            words[${#words[@]} - 1]+=$word
        fi
        rest=${rest#"$word"}
    done
    COMPREPLY=()
    while IFS= read -r line; do
        case $line in
        :[0-9]*) directive=${line#:} ;;
        *) COMPREPLY+=("${line%%$'\t'*}") ;;
        esac
    done < <("${words[0]}" __completeNoDesc "${words[@]:1}" 2>/dev/null)
    # What bash replaces begins behind the last break.
    word=${words[${#words[@]} - 1]}
    [[ $COMP_WORDBREAKS != *:* ]] || breaks+=:
    [[ $COMP_WORDBREAKS != *=* ]] || breaks+==
    if [[ -n $breaks && $word == *[$breaks]* ]]; then
        strip=${word%"${word##*[$breaks]}"}
        COMPREPLY=("${COMPREPLY[@]#"$strip"}")
    fi
    ((!(directive & 2))) || compopt -o nospace
    ((directive & 4)) || compopt -o default
}

complete -F _@PROGRAM@ @PROGRAM@
