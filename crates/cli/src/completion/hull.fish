# fish completion for @PROGRAM@: the words are asked of the program itself, which knows its commands, flags and the engine.

function __@PROGRAM@_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l lines ($words[1] @COMPLETE@ $words[2..] "$current" 2>/dev/null)
    set -l last (count $lines)
    if test $last -gt 1
        printf '%s\n' $lines[1..(math $last - 1)]
    else if contains -- "$lines" :0 :2
        __fish_complete_path "$current"
    end
end

complete -c @PROGRAM@ -f -k -a '(__@PROGRAM@_complete)'
