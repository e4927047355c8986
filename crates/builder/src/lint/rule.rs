//! The rules by name, and which of them a Dockerfile asks to leave out.

use crate::language::CheckDirective;

/// A rule. Names are those of docker/dockerfile's checks, which Dockerfiles skip by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each variant has its description below")]
pub enum Rule {
    StageNameCasing,
    FromAsCasing,
    NoEmptyContinuation,
    ConsistentInstructionCasing,
    DuplicateStageName,
    ReservedStageName,
    JSONArgsRecommended,
    MaintainerDeprecated,
    UndefinedArgInFrom,
    WorkdirRelativePath,
    UndefinedVar,
    MultipleInstructionsDisallowed,
    LegacyKeyValueFormat,
    InvalidBaseImagePlatform,
    RedundantTargetPlatform,
    SecretsUsedInArgOrEnv,
    InvalidDefaultArgInFrom,
    FromPlatformFlagConstDisallowed,
    CopyIgnoredFile,
    InvalidDefinitionDescription,
    ExposeProtoCasing,
    ExposeInvalidFormat,
}

impl Rule {
    /// Its name.
    pub fn name(self) -> String {
        format!("{self:?}")
    }

    /// Why it is one, in a sentence without its full stop.
    pub fn description(self) -> &'static str {
        match self {
            Self::StageNameCasing => "names of stages are in lower case",
            Self::FromAsCasing => "AS is written in the case of its FROM",
            Self::NoEmptyContinuation => "an empty line does not continue an instruction",
            Self::ConsistentInstructionCasing => "instructions are all in the same case",
            Self::DuplicateStageName => "every stage has a name of its own",
            Self::ReservedStageName => "a stage is not called what something else is called",
            Self::JSONArgsRecommended => {
                "a command as JSON array gets signals itself, and not a shell in its place"
            }
            Self::MaintainerDeprecated => "who maintains an image is said by a label",
            Self::UndefinedArgInFrom => "FROM uses arguments that are declared before it",
            Self::WorkdirRelativePath => {
                "a relative directory depends on that of the base image, which can change"
            }
            Self::UndefinedVar => "variables are defined before they are used",
            Self::MultipleInstructionsDisallowed => "of several, only the last one counts",
            Self::LegacyKeyValueFormat => "names and values are joined by an equals sign",
            Self::InvalidBaseImagePlatform => "a base image is of the platform that is built for",
            Self::RedundantTargetPlatform => "the target's platform is what FROM takes anyway",
            Self::SecretsUsedInArgOrEnv => {
                "arguments and variables stay in the image, where everybody can read them"
            }
            Self::InvalidDefaultArgInFrom => {
                "defaults of arguments make a base image that can be built on"
            }
            Self::FromPlatformFlagConstDisallowed => {
                "a platform that is written down keeps others from being built for"
            }
            Self::CopyIgnoredFile => "what .dockerignore leaves out cannot be copied",
            Self::InvalidDefinitionDescription => {
                "a comment above a stage or argument begins with its name"
            }
            Self::ExposeProtoCasing => "protocols are in lower case",
            Self::ExposeInvalidFormat => "EXPOSE has ports of the container alone",
        }
    }

    /// Where it is explained; `None` where it is not.
    pub fn url(self) -> Option<String> {
        if self == Self::InvalidBaseImagePlatform {
            return None;
        }
        let name = self.name();
        let letters: Vec<char> = name.chars().collect();
        let mut path = String::new();
        for (at, letter) in letters.iter().enumerate() {
            let lower = |at: usize| letters.get(at).is_some_and(char::is_ascii_lowercase);
            // Capitals in a row are a word, but for the last of them.
            if at > 0 && letter.is_ascii_uppercase() && (lower(at - 1) || lower(at + 1)) {
                path.push('-');
            }
            path.push(letter.to_ascii_lowercase());
        }
        Some(format!(
            "https://docs.docker.com/go/dockerfile/rule/{path}/"
        ))
    }

    /// Only checked where that is asked for.
    fn is_experimental(self) -> bool {
        self == Self::InvalidDefinitionDescription
    }

    pub(super) fn is_wanted(self, check: &CheckDirective) -> bool {
        let name = self.name();
        match self.is_experimental() {
            true => check.experimental_all || check.experimental.contains(&name),
            false => !check.skip_all && !check.skip.contains(&name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_words() {
        let url = |rule: Rule| rule.url().unwrap();
        assert!(url(Rule::JSONArgsRecommended).ends_with("/json-args-recommended/"));
        assert!(url(Rule::UndefinedArgInFrom).ends_with("/undefined-arg-in-from/"));
        assert!(url(Rule::FromAsCasing).ends_with("/from-as-casing/"));
    }
}
