//! Certificates that an authority of its own vouches for, made by openssl(1).

use std::path::PathBuf;
use std::process::Command;

/// An authority, and what it has vouched for: `ca.pem`, and `<name>.pem` with `<name>-key.pem`.
pub struct Authority {
    directory: tempfile::TempDir,
}

impl Authority {
    pub fn new() -> Self {
        let authority = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        authority.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-keyout",
            "ca-key.pem",
            "-out",
            "ca.pem",
            "-subj",
            "/CN=authority",
            "-addext",
            "basicConstraints=critical,CA:TRUE",
        ]);
        authority
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Makes a certificate for a server at 127.0.0.1, or for a client.
    pub fn issue(&self, name: &str, subject: &str, server: bool) {
        let usage = if server {
            "extendedKeyUsage=serverAuth\nsubjectAltName=IP:127.0.0.1,DNS:localhost\n"
        } else {
            "extendedKeyUsage=clientAuth\n"
        };
        std::fs::write(self.path("extensions"), usage).unwrap();
        let (key, request, certificate) = (
            format!("{name}-key.pem"),
            format!("{name}.csr"),
            format!("{name}.pem"),
        );
        self.openssl(&[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-keyout",
            &key,
            "-out",
            &request,
            "-subj",
            subject,
        ]);
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca-key.pem",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "extensions",
            "-out",
            &certificate,
        ]);
    }

    /// A directory as DOCKER_CERT_PATH names one, with a client's certificate.
    pub fn client_directory(&self, name: &str) -> PathBuf {
        let directory = self.path(&format!("{name}-directory"));
        std::fs::create_dir(&directory).unwrap();
        for (from, to) in [
            ("ca.pem".to_owned(), "ca.pem"),
            (format!("{name}.pem"), "cert.pem"),
            (format!("{name}-key.pem"), "key.pem"),
        ] {
            std::fs::copy(self.path(&from), directory.join(to)).unwrap();
        }
        directory
    }

    fn openssl(&self, arguments: &[&str]) {
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(self.directory.path())
            .output();
        let output = output.expect("openssl is installed");
        assert!(output.status.success(), "openssl {arguments:?}: {output:?}");
    }
}

/// The port of 127.0.0.1 that an engine has logged.
pub fn port(log: &str) -> u16 {
    let address = log.rsplit("address=tcp://127.0.0.1:").next().unwrap();
    let digits: String = address.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}
