//! What shells complete: flags and their values, commands and theirs, directories.

use super::command::{self, Command};
use super::{Completed, PROGRAM, completed};
use crate::program::settings::{Kind, SETTINGS, Setting};
use std::fmt::Write;

const HEADER: &str = "Made from the table of settings; `HANDOVER_RENEW=1 cargo test --lib manual` writes it anew.";

/// A flag, of the program or of one of its commands.
struct Flag {
    short: Option<char>,
    long: String,
    /// What it takes, if it takes something; `=` in front of what may be left out.
    takes: Option<String>,
    text: String,
    completed: Completed,
    /// Whether it may stand several times.
    is_list: bool,
}

fn of_setting(setting: &Setting) -> Option<Flag> {
    Some(Flag {
        short: setting.short,
        long: setting.flag()?,
        takes: setting.takes().map(str::to_owned),
        text: setting.help?.to_owned(),
        completed: completed(setting),
        is_list: matches!(setting.kind, Kind::Addresses),
    })
}

fn flags() -> Vec<Flag> {
    SETTINGS.iter().filter_map(of_setting).collect()
}

fn flags_of(command: &Command) -> Vec<Flag> {
    let flags = command.options.iter().filter(|option| option.is_flag());
    let flag = |option: &command::Opt| Flag {
        short: option.short,
        long: option.long.clone(),
        takes: Some(option.takes.clone()).filter(|takes| !takes.is_empty()),
        text: option.text.clone(),
        completed: option.completed(),
        is_list: option.takes.ends_with("..."),
    };
    flags.map(flag).collect()
}

impl Flag {
    fn may_be_alone(&self) -> bool {
        self.takes.as_ref().is_some_and(|takes| takes.starts_with('['))
    }
}

/// All of a flag's names, with dashes.
fn names(flag: &Flag) -> impl Iterator<Item = String> + '_ {
    flag.short.map(|short| format!("-{short}")).into_iter().chain([format!("--{}", flag.long)])
}

/// What a command takes that is no flag: a file of users, or nothing that could be completed.
fn takes_a_file(command: &Command) -> bool {
    command.usage.iter().any(|usage| usage.split(' ').any(|word| word == "FILE") && usage.ends_with("FILE USER"))
}

pub fn bash() -> String {
    let commands = command::all();
    let words = commands.iter().map(|command| command.name).collect::<Vec<_>>();
    let mut all = format!("# bash: {HEADER}\n\n");
    all += &format!(
        "\
_handover() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}} command=
    if [ \"$COMP_CWORD\" -gt 1 ]; then
        case ${{COMP_WORDS[1]}} in
            {}) command=${{COMP_WORDS[1]}} ;;
        esac
    fi
    # The shell takes --flag=value for three words.
    if [ \"$current\" = = ]; then
        current=
    elif [ \"$previous\" = = ]; then
        previous=${{COMP_WORDS[COMP_CWORD - 2]}}
    fi
    COMPREPLY=()
    case $command,$previous in
",
        words.join(" | ")
    );
    let case = |all: &mut String, command: &str, flags: &[Flag]| {
        for flag in flags.iter().filter(|flag| flag.takes.is_some() && !flag.may_be_alone()) {
            let patterns: Vec<String> = names(flag).map(|name| format!("{command},{name}")).collect();
            let action = match &flag.completed {
                Completed::File => "_handover_names -f".to_owned(),
                Completed::User => "_handover_words -u".to_owned(),
                Completed::Words(words) => format!("_handover_words -W '{}'", words.join(" ")),
                Completed::Nothing => ":".to_owned(),
            };
            let _ = writeln!(all, "        {}) {action} ;;", patterns.join(" | "));
        }
    };
    case(&mut all, "", &flags());
    for command in &commands {
        case(&mut all, command.name, &flags_of(command));
    }
    let list = |flags: &[Flag]| flags.iter().flat_map(names).collect::<Vec<_>>().join(" ");
    for command in &commands {
        let _ = writeln!(all, "        {},*)", command.name);
        let _ = writeln!(all, "            case $current in");
        let _ = writeln!(all, "                -*) _handover_words -W '{}' ;;", list(&flags_of(command)));
        if takes_a_file(command) {
            let _ = writeln!(all, "                *) _handover_names -f ;;");
        }
        let _ = writeln!(all, "            esac\n            ;;");
    }
    all += &format!(
        "        *)
            case $current in
                -*) _handover_words -W '{}' ;;
                *)
                    _handover_names -d
                    if [ \"$COMP_CWORD\" -eq 1 ]; then
                        COMPREPLY+=($(compgen -W '{}' -- \"$current\"))
                    fi
                    ;;
            esac
            ;;
    esac
}}

_handover_words() {{
    mapfile -t COMPREPLY < <(compgen \"$@\" -- \"$current\")
}}

# Of files or directories, which may have spaces in them.
_handover_names() {{
    mapfile -t COMPREPLY < <(compgen \"$@\" -- \"$current\")
    compopt -o filenames 2>/dev/null
}}

complete -F _handover {PROGRAM}
",
        list(&flags()),
        words.join(" ")
    );
    all
}

/// Text in single quotes, which zsh and fish end and begin alike.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// A flag as `_arguments` has it.
fn argument(flag: &Flag) -> String {
    // What is in brackets ends at the next one, what is behind a colon is something else.
    let text = flag.text.replace('[', "(").replace(']', ")").replace(':', "\\:");
    let action = match &flag.completed {
        Completed::File => "_files".to_owned(),
        Completed::User => "_users".to_owned(),
        Completed::Words(words) => format!("({})", words.join(" ")),
        Completed::Nothing => " ".to_owned(),
    };
    let value = flag.takes.as_ref().map(|takes| {
        let name = takes.trim_matches(|char: char| !char.is_ascii_alphabetic()).to_lowercase();
        format!("{}:{name}:{action}", if flag.may_be_alone() { ":" } else { "" })
    });
    let end = match &flag.takes {
        None => "",
        // `--wait=SECS`, and never `--wait SECS`.
        Some(_) if flag.may_be_alone() => "=-",
        Some(_) => "=",
    };
    let spec = quoted(&format!("[{text}]{}", value.unwrap_or_default()));
    let star = if flag.is_list { "'*'" } else { "" };
    match flag.short {
        Some(short) => {
            let others = if flag.is_list { String::new() } else { format!("'(-{short} --{})'", flag.long) };
            let attached = if flag.takes.is_some() { "+" } else { "" };
            format!("{star}{others}{{-{short}{attached},--{}{end}}}{spec}", flag.long)
        }
        None => format!("{star}--{}{end}{spec}", flag.long),
    }
}

pub fn zsh() -> String {
    let commands = command::all();
    let mut all = format!("#compdef {PROGRAM}\n# zsh: {HEADER}\n\n_handover() {{\n");
    all += "    local curcontext=$curcontext\n    if (( CURRENT > 2 )); then\n        case $words[2] in\n";
    for command in &commands {
        let _ = writeln!(all, "            {})", command.name);
        all += "                shift words\n                (( CURRENT-- ))\n                _arguments -s -S";
        for flag in flags_of(command) {
            let _ = write!(all, " \\\n                    {}", argument(&flag));
        }
        if takes_a_file(command) {
            all += " \\\n                    '1:file:_files' \\\n                    '2:user: '";
        }
        all += "\n                return\n                ;;\n";
    }
    all += "        esac\n    fi\n    _arguments -s -S";
    for flag in flags() {
        let _ = write!(all, " \\\n        {}", argument(&flag));
    }
    all += " \\\n        '1:directory:_handover_first'\n}\n\n_handover_first() {\n    local -a commands=(\n";
    for command in &commands {
        let _ = writeln!(all, "        {}", quoted(&format!("{}:{}", command.name, command.short)));
    }
    all += "    )\n    (( CURRENT == 2 )) && _describe command commands\n    _files -/\n}\n\n_handover \"$@\"\n";
    all
}

pub fn fish() -> String {
    let commands = command::all();
    let names = commands.iter().map(|command| command.name).collect::<Vec<_>>().join(" ");
    let mut all = format!(
        "\
# fish: {HEADER}

# Whether that is the command: the first argument, as the program sees it; '' for none.
function __handover_is -a wanted
    set -l words (commandline -opc)
    set -l command ''
    if contains -- \"$words[2]\" {names}
        set command $words[2]
    end
    test \"$command\" = \"$wanted\"
end

complete -c {PROGRAM} -f
complete -c {PROGRAM} -n '__handover_is \"\"' -a '(__fish_complete_directories)'
"
    );
    for command in &commands {
        let _ = writeln!(
            all,
            "complete -c {PROGRAM} -n 'test (count (commandline -opc)) = 1' -a {} -d {}",
            command.name,
            quoted(command.short)
        );
    }
    for flag in flags() {
        let _ = writeln!(all, "complete -c {PROGRAM} -n '__handover_is \"\"'{}", fish_flag(&flag));
    }
    for command in &commands {
        let condition = format!("complete -c {PROGRAM} -n '__handover_is {}'", command.name);
        if takes_a_file(command) {
            let _ = writeln!(all, "{condition} -F");
        }
        for flag in flags_of(command) {
            let _ = writeln!(all, "{condition}{}", fish_flag(&flag));
        }
    }
    all
}

fn fish_flag(flag: &Flag) -> String {
    let short = flag.short.map(|short| format!(" -s {short}")).unwrap_or_default();
    let takes = match &flag.completed {
        _ if flag.takes.is_none() || flag.may_be_alone() => String::new(),
        Completed::File => " -r -F".to_owned(),
        Completed::User => " -x -a '(__fish_complete_users)'".to_owned(),
        Completed::Words(words) => format!(" -x -a '{}'", words.join(" ")),
        Completed::Nothing => " -x".to_owned(),
    };
    format!("{short} -l {}{takes} -d {}", flag.long, quoted(&flag.text))
}

#[test]
fn each_shell_has_each_flag() {
    for made in [bash(), zsh(), fish()] {
        let of_commands = command::all();
        let all = flags().into_iter().chain(of_commands.iter().flat_map(flags_of));
        let missing: Vec<String> = all
            .map(|flag| flag.long)
            .filter(|long| !made.contains(&format!("--{long}")) && !made.contains(&format!("-l {long}")))
            .collect();
        assert_eq!(missing, [""; 0]);
    }
}
