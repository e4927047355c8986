//! What a build tells while it goes on.

use crate::language::Position;
use crate::lint::Finding;
use oci::image::Platform;

/// A step's place among all that are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StepNumber(pub usize);

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// How many steps there will be, the triggers of base images left out.
    Planned {
        /// The number.
        steps: usize,
    },
    /// A step begins.
    Began {
        /// Which.
        step: StepNumber,
        /// The stage's name; empty where it is the only one.
        stage: &'a str,
        /// The platform that it is for, where there are several.
        platform: Option<&'a Platform>,
        /// The step's number among those of its stage that may make a layer or take an image, from 1, and how many those are;
        /// `None` where it only changes the configuration.
        place: Option<(usize, usize)>,
        /// The instruction as it is written.
        text: &'a str,
        /// Where.
        position: Position,
        /// It is a trigger of the base image, and was not counted.
        trigger: bool,
    },
    /// A base image is taken.
    Based {
        /// The step that is its FROM.
        step: StepNumber,
        /// The image's name and ID; `None` for `scratch` and stages.
        image: Option<(&'a str, &'a str)>,
    },
    /// A command runs in a container.
    Running {
        /// The step.
        step: StepNumber,
        /// The container's ID.
        container: &'a str,
    },
    /// A command's output.
    Output {
        /// The step.
        step: StepNumber,
        /// Standard error.
        is_error: bool,
        /// What was written.
        bytes: &'a [u8],
    },
    /// A command has failed, and a container with a shell stands on what it has left, with a terminal and not started. The
    /// build goes on when the client has removed it.
    Shell {
        /// The step.
        step: StepNumber,
        /// The container's ID.
        container: &'a str,
        /// Why the step has failed, in one line.
        reason: &'a str,
    },
    /// The container of a step is gone.
    Removed {
        /// The step.
        step: StepNumber,
        /// The container's ID.
        container: &'a str,
    },
    /// Why a step was not, or was, taken from the cache.
    Explained {
        /// The step.
        step: StepNumber,
        /// The reason, a sentence without its full stop.
        reason: &'a str,
    },
    /// A step is done.
    Ended {
        /// Which.
        step: StepNumber,
        /// What it led to was there already.
        cached: bool,
        /// The ID that an image of it would have.
        id: &'a str,
        /// Bytes of the files in its layer, where it made one.
        layer_bytes: Option<u64>,
    },
    /// Something had better be written otherwise.
    Found(&'a Finding),
    /// Something begins that is no step.
    Task(&'a str),
    /// It has ended; with the reason, where it failed.
    TaskEnded(&'a str, Option<&'a str>),
    /// All steps are done, and what they led to becomes an image, or goes where its files are to go.
    Publishing,
    /// Something that the user should know.
    Warning(&'a str),
}

/// Takes what a build tells. It is called from several threads, and a slow one slows the build down.
pub trait Progress: Send + Sync {
    /// Takes an event.
    fn tell(&self, event: &Event<'_>);
}
