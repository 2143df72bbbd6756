//! Completion of resource names, which clap cannot know: added to the script that it makes for each
//! shell. The names are those of the files in `--confdir`, `$CONFSYNC_CONFDIR`, or
//! `/etc/confsync`.

use common::settings::cli::Shell;

const BASH: &str = r#"
_confsync_or_resources() {
    _confsync "$@"
    [[ $2 != -* && $3 != --* ]] || return 0
    local at names takes_one="" folder="${CONFSYNC_CONFDIR:-/etc/confsync}"
    for ((at = 1; at < COMP_CWORD; at++)); do
        case ${COMP_WORDS[at]} in
            --confdir) folder="${COMP_WORDS[++at]}" ;;
            render | accept) takes_one=yes ;;
        esac
    done
    [[ -n $takes_one ]] || return 0
    names="$(cd "$folder/conf.d" 2>/dev/null && ls -- *.toml 2>/dev/null)"
    COMPREPLY=($(compgen -W "${names//.toml/}" -- "$2"))
}
complete -F _confsync_or_resources -o bashdefault -o default confsync
"#;

const ZSH: &str = r#"_confsync_resources() {
    local folder="${opt_args[--confdir]:-${CONFSYNC_CONFDIR:-/etc/confsync}}"
    local -a names=("$folder"/conf.d/*.toml(N:t:r))
    compadd -a names
}

"#;

const FISH: &str = r#"
function __fish_confsync_resources
    set -l folder /etc/confsync
    set -q CONFSYNC_CONFDIR; and set folder $CONFSYNC_CONFDIR
    set -l words (commandline -opc)
    if set -l at (contains -i -- --confdir $words)
        set folder $words[(math $at + 1)]
    end
    for file in $folder/conf.d/*.toml
        string replace -r '.*/(.*)\.toml$' '$1' $file
    end
end
complete -c confsync -n "__fish_confsync_using_subcommand render accept" -f -a "(__fish_confsync_resources)"
"#;

/// The script of this shell, which completes the names of resources too.
pub fn with_resources(shell: Shell, script: String) -> String {
    match shell {
        Shell::Bash => script + BASH,
        Shell::Fish => script + FISH,
        Shell::Zsh => {
            let named =
                script.replace("without .toml:_default'", "without .toml:_confsync_resources'");
            let start = "if [ \"$funcstack[1]\"";
            named.replacen(start, &format!("{ZSH}{start}"), 1)
        }
        _ => script,
    }
}
