# bash: Made from the table of settings; `HANDOVER_RENEW=1 cargo test --lib manual` writes it anew.

_handover() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} command=
    if [ "$COMP_CWORD" -gt 1 ]; then
        case ${COMP_WORDS[1]} in
            reload | token | top | passwd) command=${COMP_WORDS[1]} ;;
        esac
    fi
    # The shell takes --flag=value for three words.
    if [ "$current" = = ]; then
        current=
    elif [ "$previous" = = ]; then
        previous=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    COMPREPLY=()
    case $command,$previous in
        ,-c | ,--config) _handover_names -f ;;
        ,-l | ,--listen) : ;;
        ,-w | ,--workers) : ;;
        ,--user) _handover_words -u ;;
        ,--log-file) _handover_names -f ;;
        ,--log-level) _handover_words -W 'off error warn info debug trace' ;;
        ,--access-log) _handover_names -f ;;
        ,--pid-file) _handover_names -f ;;
        ,--history-file) _handover_names -f ;;
        ,--bus) : ;;
        ,--stop-deadline) : ;;
        ,--lame-duck) : ;;
        ,--reload) _handover_words -W 'auto overlap exec' ;;
        ,--reload-probation) : ;;
        ,--reload-deadline) : ;;
        ,--exec-stall) : ;;
        ,--memory) : ;;
        ,--max-connections) : ;;
        ,--max-connections-per-ip) : ;;
        ,--max-body) : ;;
        ,--head-timeout) : ;;
        ,--idle-timeout) : ;;
        ,--write-timeout) : ;;
        ,--queue-timeout) : ;;
        reload,--pid-file) _handover_names -f ;;
        reload,--pid) : ;;
        reload,--program) : ;;
        token,--key-file) _handover_names -f ;;
        token,--subscribe) : ;;
        token,--publish) : ;;
        token,--expires) : ;;
        token,--subject) : ;;
        top,--every) : ;;
        top,--token-file) _handover_names -f ;;
        passwd,--cost) : ;;
        reload,*)
            case $current in
                -*) _handover_words -W '--pid-file --pid --wait --program -h --help' ;;
            esac
            ;;
        token,*)
            case $current in
                -*) _handover_words -W '--key-file --subscribe --publish --expires --subject -h --help' ;;
            esac
            ;;
        top,*)
            case $current in
                -*) _handover_words -W '--every --once --token-file -h --help' ;;
            esac
            ;;
        passwd,*)
            case $current in
                -*) _handover_words -W '--cost --delete -h --help' ;;
                *) _handover_names -f ;;
            esac
            ;;
        *)
            case $current in
                -*) _handover_words -W '-c --config -l --listen -w --workers --listing --no-status-routes --user --log-file --log-level --access-log --pid-file --history-file --bus --stop-deadline --lame-duck --reload --reload-probation --reload-deadline --exec-stall --memory --max-connections --max-connections-per-ip --max-body --head-timeout --idle-timeout --write-timeout --queue-timeout --check -V --version -h --help' ;;
                *)
                    _handover_names -d
                    if [ "$COMP_CWORD" -eq 1 ]; then
                        COMPREPLY+=($(compgen -W 'reload token top passwd' -- "$current"))
                    fi
                    ;;
            esac
            ;;
    esac
}

_handover_words() {
    mapfile -t COMPREPLY < <(compgen "$@" -- "$current")
}

# Of files or directories, which may have spaces in them.
_handover_names() {
    mapfile -t COMPREPLY < <(compgen "$@" -- "$current")
    compopt -o filenames 2>/dev/null
}

complete -F _handover handover
