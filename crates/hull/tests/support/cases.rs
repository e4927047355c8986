//! Dockerfiles of a few lines, as files of text have them.
//!
//! A case begins with `=== ` and its title, behind which there may be flags of the build, each after ` | `. What follows is the
//! Dockerfile. Where a line `--- each` ends it, every line after that is a case of its own: `{}` in the Dockerfile stands for it.
//! What a text does not show has a sign: `␁` a byte order mark, `␍` a carriage return, `␀` a zero, `␋` and `␌` other blanks, `␦` a
//! byte that is no text.

/// A Dockerfile to build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// What it is about; of those that have a Dockerfile in common, with the line.
    pub title: String,
    /// Flags of the build.
    pub flags: Vec<String>,
    /// The Dockerfile.
    pub dockerfile: Vec<u8>,
}

/// A script that fills the context of all of them, in the directory where it runs.
pub const CONTEXT: &str = r#"set -e
    mkdir -p dir/sub empty
    for name in one.txt two.txt "two words.txt" dir/a dir/sub/b dir/sub/c.txt ignored.log keep.log other.log; do
        echo "$name" > "$name"
    done
    ln -s one.txt link; ln -s dir dirlink; ln -s none broken; ln -s ../outside escape
    printf '%s\n' '*.log' '!keep.log' > .dockerignore
    echo 'FROM scratch' > Dockerfile
    echo 'no archive' > fake.tar.gz
    chmod -R u=rwX,go=rX .
    tar -cf archive.tar --owner=3:3 --group=4:4 --mtime=@1500000000 dir
    gzip -n < archive.tar > archive.tar.gz
    find . -depth -exec touch -h -d @1700000000 {} +"#;

/// The cases of a text.
pub fn read(text: &str) -> Vec<Case> {
    let text = format!("\n{text}");
    let mut cases = Vec::new();
    for section in text.split("\n=== ").skip(1) {
        let (head, body) = section.split_once('\n').unwrap_or((section, ""));
        let mut words = head.split(" | ").map(str::to_owned);
        let title = words.next().unwrap_or_default();
        let flags: Vec<String> = words.collect();
        let Some((common, lines)) = body.split_once("--- each\n") else {
            cases.push(Case {
                title,
                flags,
                dockerfile: bytes(body),
            });
            continue;
        };
        let lines = lines.lines().filter(|line| !line.is_empty());
        cases.extend(lines.map(|line| Case {
            title: format!("{title}: {line}"),
            flags: flags.clone(),
            dockerfile: bytes(&common.replace("{}", line)),
        }));
    }
    cases
}

/// A text with what its signs stand for.
fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for c in text.chars() {
        match c {
            '␁' => bytes.extend("\u{feff}".as_bytes()),
            '␍' => bytes.push(b'\r'),
            '␀' => bytes.push(0),
            '␋' => bytes.push(0x0b),
            '␌' => bytes.push(0x0c),
            '␦' => bytes.push(0xff),
            c => bytes.extend(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}
