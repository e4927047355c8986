//! Variables of a build: arguments, environment, and what is known beforehand.

use crate::error::{Error, Result};
use crate::language::expand::{ExpandError, Expander};
use crate::language::{ArgDeclaration, Dockerfile};
use oci::image::Platform;
use std::collections::BTreeMap;

/// Arguments that commands have without being declared, and that no cache key has: they say how to reach the world, not what
/// is built.
pub(crate) const PROXIES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// The argument that says whether an SBOM is to be of the context, too.
pub const SCAN_CONTEXT: &str = "BUILDKIT_SBOM_SCAN_CONTEXT";
/// The argument that says whether it is to be of a stage that is not the target, too.
pub(crate) const SCAN_STAGE: &str = "BUILDKIT_SBOM_SCAN_STAGE";
/// Both, which commands do not see.
pub(crate) const SCANS: [&str; 2] = [SCAN_CONTEXT, SCAN_STAGE];

/// Arguments of the platforms.
pub(crate) fn platform_args(target: &Platform, build: &Platform) -> BTreeMap<String, String> {
    let mut args = BTreeMap::new();
    for (prefix, platform) in [("TARGET", target), ("BUILD", build)] {
        let variant = platform.variant.clone().unwrap_or_default();
        args.insert(format!("{prefix}PLATFORM"), platform.to_string());
        args.insert(format!("{prefix}OS"), platform.os.clone());
        args.insert(format!("{prefix}ARCH"), platform.architecture.clone());
        args.insert(format!("{prefix}VARIANT"), variant);
    }
    args
}

/// What the variables of a stage's instructions are.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    escape: char,
    /// Declared arguments in their order, with their values where they have one.
    args: Vec<(String, Option<String>)>,
}

impl Scope {
    pub(crate) fn new(escape: char) -> Self {
        Self {
            escape,
            args: Vec::new(),
        }
    }

    /// That of FROM lines: the arguments before them, and what is known beforehand.
    pub(crate) fn global(
        file: &Dockerfile,
        given: &BTreeMap<String, String>,
        known: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let mut global = Self::known(file, known);
        global.declare_all(file.arguments(), &[], given, known)?;
        Ok(global)
    }

    /// What is known beforehand alone.
    pub(crate) fn known(file: &Dockerfile, known: &BTreeMap<String, String>) -> Self {
        let mut scope = Self::new(file.directives.escape);
        for (name, value) in known {
            scope.declare(name, Some(value.clone()));
        }
        scope
    }

    /// The declared arguments that have a value, in their order.
    pub(crate) fn args(&self) -> impl Iterator<Item = (&str, &str)> {
        { self.args.iter() }.filter_map(|(name, value)| Some((name.as_str(), value.as_deref()?)))
    }

    /// The declared arguments in their order.
    pub(crate) fn declared(&self) -> impl Iterator<Item = &str> {
        self.args.iter().map(|(name, _)| name.as_str())
    }

    /// Declares an argument. One that is declared gets another value, if there is one.
    pub(crate) fn declare(&mut self, name: &str, value: Option<String>) {
        match self.args.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) if value.is_some() => *known = value,
            Some(_) => {}
            None => self.args.push((name.to_owned(), value)),
        }
    }

    /// Takes an argument its value away: ENV has set a variable of that name.
    pub(crate) fn set_by_env(&mut self, name: &str) {
        if let Some((_, value)) = self.args.iter_mut().find(|(known, _)| known == name) {
            *value = None;
        }
    }

    /// What a stage on top of another begins with: its environment, whatever arguments the one below has given other values since.
    pub(crate) fn on_top(&self, env: &[String]) -> Self {
        let mut scope = self.clone();
        for variable in env {
            scope.set_by_env(variable.split('=').next().unwrap_or_default());
        }
        scope
    }

    /// Declares arguments as ARG does: what the client gives counts, then the default, then what is known beforehand. Returns
    /// them with what they have got.
    pub(crate) fn declare_all<'d>(
        &mut self,
        declarations: impl IntoIterator<Item = &'d ArgDeclaration>,
        env: &[String],
        given: &BTreeMap<String, String>,
        known: &BTreeMap<String, String>,
    ) -> Result<Vec<(&'d str, Option<String>)>> {
        let mut declared = Vec::new();
        for ArgDeclaration { name, default } in declarations {
            let value = match (given.get(name), default) {
                // A default that is not used may say anything.
                (Some(given), _) => Some(given.clone()),
                (None, Some(text)) => Some(self.word(text, env)?),
                (None, None) => known.get(name).cloned(),
            };
            self.declare(name, value.clone());
            declared.push((name.as_str(), value));
        }
        Ok(declared)
    }

    /// The value of a variable: of ARG and ENV, the one that came last counts.
    pub(crate) fn get(&self, name: &str, env: &[String]) -> Option<String> {
        let arg = self.args.iter().find(|(known, _)| known == name);
        let of_arg = arg.and_then(|(_, value)| value.clone());
        of_arg.or_else(|| {
            env.iter().find_map(|variable| {
                let value = variable.strip_prefix(name)?.strip_prefix('=')?;
                Some(value.to_owned())
            })
        })
    }

    pub(crate) fn word(&self, text: &str, env: &[String]) -> Result<String> {
        self.with(env, |expander| expander.word(text), text)
    }

    pub(crate) fn words(&self, text: &str, env: &[String]) -> Result<Vec<String>> {
        self.with(env, |expander| expander.words(text), text)
    }

    pub(crate) fn document(&self, text: &str, env: &[String]) -> Result<String> {
        self.with(env, |expander| expander.document(text), "the here-document")
    }

    fn with<T>(
        &self,
        env: &[String],
        expand: impl FnOnce(&Expander<'_>) -> std::result::Result<T, ExpandError>,
        text: &str,
    ) -> Result<T> {
        let lookup = |name: &str| self.get(name, env);
        let expander = Expander {
            escape: self.escape,
            lookup: &lookup,
        };
        expand(&expander)
            .map_err(|error| Error::Invalid(format!("failed to process {text:?}: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declaration(name: &str, default: Option<&str>) -> ArgDeclaration {
        ArgDeclaration {
            name: name.to_owned(),
            default: default.map(str::to_owned),
        }
    }

    #[test]
    fn what_the_client_gives_counts_before_defaults() {
        let mut scope = Scope::new('\\');
        let given = BTreeMap::from([("a".to_owned(), "given".to_owned())]);
        let known = BTreeMap::from([("TARGETOS".to_owned(), "linux".to_owned())]);
        let declarations = [
            declaration("a", Some("default")),
            declaration("b", Some("$a-$e")),
            declaration("TARGETOS", None),
            declaration("c", None),
        ];
        let env = ["e=env".to_owned()];
        let declared = { scope.declare_all(&declarations, &env, &given, &known) }.unwrap();
        assert_eq!(declared[1], ("b", Some("given-env".to_owned())));
        assert_eq!(declared[3], ("c", None));
        let args: Vec<_> = scope.args().collect();
        assert_eq!(
            args,
            [("a", "given"), ("b", "given-env"), ("TARGETOS", "linux")]
        );
        assert_eq!(scope.get("c", &[]), None);
    }

    #[test]
    fn of_arguments_and_environment_the_last_counts() {
        let mut scope = Scope::new('\\');
        let env = ["a=env".to_owned()];
        let nothing = BTreeMap::new();
        let declare = |scope: &mut Scope, default| {
            let declared = [declaration("a", default)];
            scope
                .declare_all(&declared, &env, &nothing, &nothing)
                .unwrap();
            scope.get("a", &env).unwrap()
        };
        assert_eq!(declare(&mut scope, None), "env");
        assert_eq!(declare(&mut scope, Some("arg")), "arg");
        // One that is declared again without a value keeps it.
        assert_eq!(declare(&mut scope, None), "arg");
        scope.set_by_env("a");
        assert_eq!(declare(&mut scope, None), "env");
        assert!(scope.declared().eq(["a"]));
        // A default that is not used is not looked at.
        let given = BTreeMap::from([("b".to_owned(), "given".to_owned())]);
        let declared = [declaration("b", Some("${"))];
        scope
            .declare_all(&declared, &env, &given, &nothing)
            .unwrap();
    }
}
