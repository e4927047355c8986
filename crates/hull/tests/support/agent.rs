//! A program for containers that talks to an SSH agent.

use super::{Engine, said};

/// Asks the agent at a socket for its keys, and prints the bytes of the answer.
const ASK: &str = r#"
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv) {
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    unsigned char answer[9];
    size_t have = 0;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    strncpy(address.sun_path, argv[1], sizeof address.sun_path - 1);
    if (connect(fd, (struct sockaddr *) &address, sizeof address) < 0) { perror(argv[1]); return 1; }
    if (write(fd, "\0\0\0\1\13", 5) != 5) return 2;
    while (have < sizeof answer) {
        ssize_t count = read(fd, answer + have, sizeof answer - have);
        if (count <= 0) return 3;
        have += count;
    }
    for (size_t at = 0; at < sizeof answer; at++) printf("%d ", answer[at]);
    return 0;
}
"#;

/// Compiles it: `ask SOCKET`.
pub fn compile_ask(engine: &Engine, to: &str) {
    std::fs::write(engine.path("ask.c"), ASK).unwrap();
    let mut compiler = engine.client("cc", &["-static", "-o", to, "ask.c"]);
    let compiled = said(compiler.output().unwrap());
    assert_eq!(compiled.code, 0, "{}", compiled.stderr);
}
