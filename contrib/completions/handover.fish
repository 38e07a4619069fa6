# fish: Made from the table of settings; `HANDOVER_RENEW=1 cargo test --lib manual` writes it anew.

# Whether that is the command: the first argument, as the program sees it; '' for none.
function __handover_is -a wanted
    set -l words (commandline -opc)
    set -l command ''
    if contains -- "$words[2]" reload token top passwd
        set command $words[2]
    end
    test "$command" = "$wanted"
end

complete -c handover -f
complete -c handover -n '__handover_is ""' -a '(__fish_complete_directories)'
complete -c handover -n 'test (count (commandline -opc)) = 1' -a reload -d 'run the program on disk afresh'
complete -c handover -n 'test (count (commandline -opc)) = 1' -a token -d 'make a token for push'
complete -c handover -n 'test (count (commandline -opc)) = 1' -a top -d 'show a running server'
complete -c handover -n 'test (count (commandline -opc)) = 1' -a passwd -d 'write a user into a file of users'
complete -c handover -n '__handover_is ""' -s c -l config -r -F -d 'read settings from this TOML file; flags win over it'
complete -c handover -n '__handover_is ""' -s l -l listen -x -d 'HOST:PORT, [V6]:PORT or unix:PATH; may stand several times; port 0 takes a free one'
complete -c handover -n '__handover_is ""' -s w -l workers -x -d 'threads that run handlers'
complete -c handover -n '__handover_is ""' -l listing -d 'show what is in a directory without an index'
complete -c handover -n '__handover_is ""' -l no-status-routes -d 'answer nothing below /-/: ready, status, metrics'
complete -c handover -n '__handover_is ""' -l user -x -a '(__fish_complete_users)' -d 'bind as root, then serve as this user'
complete -c handover -n '__handover_is ""' -l log-file -r -F -d 'append the log to FILE; USR1 opens it anew'
complete -c handover -n '__handover_is ""' -l log-level -x -a 'off error warn info debug trace' -d 'off, error, warn, info, debug, trace'
complete -c handover -n '__handover_is ""' -l access-log -r -F -d 'a line for each request to FILE, or - for stdout'
complete -c handover -n '__handover_is ""' -l pid-file -r -F -d 'write the process id to FILE'
complete -c handover -n '__handover_is ""' -l history-file -r -F -d 'a stop writes there what push keeps, and the next start reads it'
complete -c handover -n '__handover_is ""' -l bus -x -d 'share messages with other hosts through this Redis'
complete -c handover -n '__handover_is ""' -l stop-deadline -x -d 'wait that long for requests under way'
complete -c handover -n '__handover_is ""' -l lame-duck -x -d 'before that, serve on with /-/ready at 503'
complete -c handover -n '__handover_is ""' -l reload -x -a 'auto overlap exec' -d 'overlap (two processes) or exec (one); auto is exec unless there is NOTIFY_SOCKET'
complete -c handover -n '__handover_is ""' -l reload-probation -x -d 'the old process could still go on'
complete -c handover -n '__handover_is ""' -l reload-deadline -x -d 'what the old process still has is cut'
complete -c handover -n '__handover_is ""' -l exec-stall -x -d 'hold new work at most that long for exec'
complete -c handover -n '__handover_is ""' -l memory -x -d 'for the whole process; connections, buffers, stacks are derived from it'
complete -c handover -n '__handover_is ""' -l max-connections -x -d 'open connections'
complete -c handover -n '__handover_is ""' -l max-connections-per-ip -x -d 'of them from one address'
complete -c handover -n '__handover_is ""' -l max-body -x -d 'request body, bytes or with K, M, G'
complete -c handover -n '__handover_is ""' -l head-timeout -x -d 'for a request head to arrive'
complete -c handover -n '__handover_is ""' -l idle-timeout -x -d 'between requests of a connection'
complete -c handover -n '__handover_is ""' -l write-timeout -x -d 'for a client that takes too little of an answer'
complete -c handover -n '__handover_is ""' -l queue-timeout -x -d 'for a request to wait for a worker, then 503'
complete -c handover -n '__handover_is ""' -l check -d 'check all settings, say what would run, and exit'
complete -c handover -n '__handover_is ""' -s V -l version -d 'say which version this is'
complete -c handover -n '__handover_is ""' -s h -l help -d 'this text'
complete -c handover -n '__handover_is reload' -l pid-file -r -F -d 'the server'\''s own --pid-file'
complete -c handover -n '__handover_is reload' -l pid -x -d 'its pid'
complete -c handover -n '__handover_is reload' -l wait -d 'wait until the new generation serves [60], or the server says why there is none; needs --pid-file, beside which it leaves the outcome, in FILE.outcome'
complete -c handover -n '__handover_is reload' -l program -x -d 'the program that runs there, of which the name counts [handover]'
complete -c handover -n '__handover_is reload' -s h -l help -d 'this text'
complete -c handover -n '__handover_is token' -l key-file -r -F -d 'the token_key_file of [[push]]; its first key signs'
complete -c handover -n '__handover_is token' -l subscribe -x -d 'may subscribe to these; '\''*'\'' is every topic'
complete -c handover -n '__handover_is token' -l publish -x -d 'may publish to these; '\''*'\'' is every topic'
complete -c handover -n '__handover_is token' -l expires -x -d 'is good for so long [3600]'
complete -c handover -n '__handover_is token' -l subject -x -d 'whose it is: each has Idempotency-Keys of their own'
complete -c handover -n '__handover_is token' -s h -l help -d 'this text'
complete -c handover -n '__handover_is top' -l every -x -d 'how often to look [1]'
complete -c handover -n '__handover_is top' -l once -d 'show one interval, and end'
complete -c handover -n '__handover_is top' -l token-file -r -F -d 'the server'\''s status_token_file, for one on another host, or whose status is "nobody"'
complete -c handover -n '__handover_is top' -s h -l help -d 'this text'
complete -c handover -n '__handover_is passwd' -F
complete -c handover -n '__handover_is passwd' -l cost -x -d 'of bcrypt, 4 to 14: each step takes twice as long [10]'
complete -c handover -n '__handover_is passwd' -l delete -d 'take the user out'
complete -c handover -n '__handover_is passwd' -s h -l help -d 'this text'
