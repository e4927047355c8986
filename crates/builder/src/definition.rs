//! What a request defines: its Dockerfile, read and with the arguments of its FROM lines.

use crate::base::sought;
use crate::error::{Error, Result};
use crate::language::{self, CheckDirective, Dockerfile};
use crate::lint::{self, BaseImage, Finding};
use crate::plan::{self, Plan};
use crate::request::{NamedContext, Request};
use crate::scope::{Scope, platform_args};
use engine::Engine;
use oci::image::Platform;
use std::collections::BTreeMap;

/// Platforms of one build.
const PLATFORMS_MAX: usize = 64;

/// A Dockerfile with what it is built with.
pub(crate) struct Definition {
    pub(crate) file: Dockerfile,
    /// Which rules of lint count.
    pub(crate) check: CheckDirective,
    /// The platform to build for.
    pub(crate) platform: Platform,
    /// Arguments that need no value from anybody.
    pub(crate) known: BTreeMap<String, String>,
    /// Arguments before the first FROM, and what is known of the platforms.
    pub(crate) global: Scope,
    /// What each stage's FROM names.
    pub(crate) bases: Vec<String>,
}

impl Definition {
    /// # Errors
    /// A Dockerfile that cannot be read.
    pub(crate) fn read(request: &Request, platform: &Platform) -> Result<Self> {
        let file = language::parse(&request.dockerfile_name, &request.dockerfile)?;
        let platform = platform.clone();
        let mut known = platform_args(&platform, &images::host_platform());
        let last = file.stages.last().and_then(|stage| stage.from.name.clone());
        let target = request.target.clone().or(last);
        known.insert(
            "TARGETSTAGE".to_owned(),
            target.unwrap_or_else(|| "default".to_owned()),
        );
        let global = Scope::global(&file, &request.build_args, &known)?;
        Ok(Self {
            bases: bases(&file, &global)?,
            check: directive(request, &file)?,
            file,
            platform,
            known,
            global,
        })
    }

    /// # Errors
    /// A FROM line that names nothing.
    pub(crate) fn check_bases(&self) -> Result<()> {
        let mut all = self.bases.iter().zip(&self.file.stages);
        match all.find(|(base, _)| base.is_empty()) {
            None => Ok(()),
            Some((_, stage)) => Err(Error::Step {
                text: stage.text.clone(),
                position: stage.position,
                source: Box::new(Error::Invalid(format!(
                    "base name ({}) should not be blank",
                    stage.from.image
                ))),
            }),
        }
    }

    pub(crate) fn plan(&self, request: &Request) -> Result<Plan> {
        plan::plan(&self.file, &self.bases, request.target.as_deref())
    }

    /// What had better be written otherwise. Base images that are not here are not looked at.
    pub(crate) fn findings(
        &self,
        engine: &Engine,
        request: &Request,
        stages: &[usize],
    ) -> Vec<Finding> {
        let image = |name: &str| {
            let name = match request.contexts.get(name) {
                Some(NamedContext::Files(_) | NamedContext::Layout(_)) => return None,
                Some(NamedContext::Image(image)) => image,
                None => name,
            };
            let image = engine.images().get(&sought(name)).ok()?;
            Some(BaseImage {
                env: image.config.config.env.clone(),
                has_shell: !image.config.config.shell.is_empty(),
                platform: image.config.platform.clone(),
            })
        };
        let world = lint::World {
            build_args: &request.build_args,
            known: &self.known,
            global: &self.global,
            bases: &self.bases,
            platform: &self.platform,
            ignore: &request.ignore,
            stages,
            image: &image,
        };
        lint::check(&self.file, &self.check, &world)
    }
}

/// Which rules count: what the client says, or else the Dockerfile's top.
fn directive(request: &Request, file: &Dockerfile) -> Result<CheckDirective> {
    let given = request.build_args.get("BUILDKIT_DOCKERFILE_CHECK");
    match given.filter(|text| !text.is_empty()) {
        Some(text) => CheckDirective::parse(text).map_err(Error::Invalid),
        None => Ok(file.directives.check.clone()),
    }
}

/// The platforms that a request is for, each once.
pub(crate) fn platforms(request: &Request) -> Result<Vec<Platform>> {
    let mut all: Vec<Platform> = Vec::new();
    for platform in &request.platforms {
        if platform.os != "linux" {
            return Err(Error::Unsupported(format!("building for {platform}")));
        }
        if !all.contains(platform) {
            all.push(platform.clone());
        }
    }
    match all.len() {
        0 => Ok(vec![images::host_platform()]),
        count if count > PLATFORMS_MAX => Err(Error::Invalid(format!(
            "a build is for at most {PLATFORMS_MAX} platforms"
        ))),
        _ => Ok(all),
    }
}

/// What each FROM names.
fn bases(file: &Dockerfile, global: &Scope) -> Result<Vec<String>> {
    let stages = file.stages.iter();
    stages
        .map(|stage| global.word(&stage.from.image, &[]))
        .collect()
}
