#compdef @PROGRAM@
# zsh completion for @PROGRAM@: the words are asked of the program itself, which knows its commands, flags and the engine.

_@PROGRAM@() {
    local line value text directive=0
    local -a candidates ending
    while IFS= read -r line; do
        case $line in
        :<->) directive=${line#:} ;;
        *$'\t'*)
            value=${line%%$'\t'*}
            text=${line#*$'\t'}
            candidates+=("${value//:/\\:}:$text")
            ;;
        *) candidates+=("${line//:/\\:}") ;;
        esac
    done < <("${(Q)words[1]}" @COMPLETE@ "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)
    (( !(directive & 2) )) || ending=(-S '')
    if (( $#candidates )); then
        _describe -V '@PROGRAM@' candidates "${ending[@]}"
    elif (( !(directive & 4) )); then
        _files
    fi
}

# Found by its name in fpath, or read by a start-up file.
if [[ $funcstack[1] == _@PROGRAM@ ]]; then
    _@PROGRAM@ "$@"
else
    compdef _@PROGRAM@ @PROGRAM@
fi
