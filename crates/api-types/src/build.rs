//! Building images: what this engine adds to Docker's API.
//!
//! `POST /build?events=1` answers with messages whose `id` is [`EVENT_ID`] and whose `aux` is a [`BuildEvent`], instead of the text
//! of Docker's classic builder. With `layout=parts` the tar in the body has the context below [`PART_CONTEXT`], named contexts
//! below [`PART_NAMED`]`<name>/`, caches below [`PART_CACHES`], the Dockerfile as [`PART_DOCKERFILE`], and as [`PART_IGNORE`] what was left out of the context.
//! With `check=1` the Dockerfile is checked, with `call=targets`
//! and `call=outline` asked for what it has and takes ([`BuildEvent::Answered`]), and nothing built. With `shellonfailure=1` the client enters commands that fail
//! ([`BuildEvent::Shell`]). With `agents=["default"]` the client has SSH agents of these names ([`BuildEvent::Agent`]).
//! With `contextname=…` what is sent of the context is kept by that name, for the user; `GET /build/context?name=…` tells what is there
//! ([`KeptContext`]), and with `contextbase=…`, the generation of that, the client sends only what has changed, and [`PART_MARKS`].
//! `allow=["network.host"]` is what a Dockerfile may ask for. Each [`HEADER_SECRET`] has a secret. Engines that know all
//! this name [`COMPONENT_DETAIL`] in `/version`.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The `id` of messages that are events.
pub const EVENT_ID: &str = "hull.build";
/// Of `/version`: that builds can be asked for events, and take parts and secrets.
pub const COMPONENT_DETAIL: &str = "BuildEvents";
/// A secret, in a header of its own: the ID and the content, each in base64, with a colon between.
pub const HEADER_SECRET: &str = "X-Hull-Build-Secret";
/// Bytes of those headers together. A secret of 500 KiB fits, which is as much as BuildKit takes.
pub const SECRETS_BYTES_MAX: usize = 700 << 10;
/// The Dockerfile in a body of parts.
pub const PART_DOCKERFILE: &str = "Dockerfile";
/// The context in a body of parts.
pub const PART_CONTEXT: &str = "context";
/// The context as an archive in its turn, with the Dockerfile in it: in the place of the other three.
pub const PART_ARCHIVE: &str = "archive";
/// The `.dockerignore` in a body of parts.
pub const PART_IGNORE: &str = "dockerignore";
/// The named contexts in a body of parts.
pub const PART_NAMED: &str = "named";
/// The images that are named contexts in a body of parts: below it `<name>/blobs/sha256/<hex>`. `namedlayouts={"<name>":"<digest>"}`
/// says which manifest or index is meant; `namedaddresses={"<name>":"<address>"}` names contexts that the engine fetches.
pub const PART_LAYOUTS: &str = "layouts";
/// The caches of the client in a body of parts: below it `<number>/blobs/sha256/<hex>`, numbered as the local ones of
/// `cacheimports` are.
pub const PART_CACHES: &str = "caches";
/// What has changed in a context that is kept, in a body of parts: [`ContextChanges`].
pub const PART_MARKS: &str = "marks";
/// Bytes of [`PART_MARKS`], and of a [`KeptContext`].
pub const MARKS_BYTES_MAX: usize = 48 << 20;
/// The stream of [`BuildEvent::Piece`] with a cache for the client; those of outputs have their number after [`STREAM_OUTPUT`].
pub const STREAM_CACHE: &str = "cache";
/// Before the number of an output.
pub const STREAM_OUTPUT: &str = "output-";

/// An output or a cache, as `exports`, `cacheimports` and `cacheexports` list them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BuildWish {
    /// `image`, `oci`, `registry`, …
    #[serde(rename = "Type")]
    pub kind: String,
    /// What is to be known of it.
    #[serde(rename = "Attrs", default)]
    pub attributes: BTreeMap<String, String>,
}

/// What the engine has of a context that was sent before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptContext {
    /// Another one each time that something is sent.
    pub generation: String,
    /// What the client has said of each path, by which it knows whether that has changed.
    pub marks: BTreeMap<String, String>,
}

/// What a client says of the files that it sends of a context.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextChanges {
    /// A mark for each path, which is another when the file is; empty where the client cannot tell.
    pub sent: BTreeMap<String, String>,
    /// What is no longer there.
    pub gone: Vec<String>,
}

/// What a check of the Dockerfile has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub struct BuildFinding {
    /// The rule's name.
    pub rule: String,
    /// Why it is one.
    pub description: String,
    /// Where it is explained.
    pub url: Option<String>,
    /// What is at odds with it.
    pub detail: String,
    /// The first line of the instruction, from 1.
    pub first_line: u32,
    /// The last line.
    pub last_line: u32,
}

/// Something that happened in a build. Steps are numbers from 1; base images are steps, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum BuildEvent {
    /// How many steps there will be, the triggers of base images left out.
    Planned {
        /// The number.
        steps: usize,
    },
    /// A step begins.
    Began {
        /// Which.
        step: usize,
        /// The stage's name, after the platform where there are several; empty where there is nothing to tell apart.
        stage: String,
        /// Its number among those of its stage that may make a layer, and how many those are; `None` where it only changes
        /// the configuration.
        place: Option<(usize, usize)>,
        /// The instruction as it is written.
        text: String,
    },
    /// What a stage stands on was found.
    Based {
        /// The step that is its FROM.
        step: usize,
        /// The image's name; `None` where it is none.
        image: Option<String>,
    },
    /// A command's output.
    Output {
        /// The step.
        step: usize,
        /// Of standard error.
        error: bool,
        /// Base64 of what was written.
        data: String,
    },
    /// A command has failed, and a container with a shell stands on what it has left (`shellonfailure=1`), with a terminal and
    /// not started. The build goes on when it is removed.
    Shell {
        /// The step.
        step: usize,
        /// The container's ID.
        container: String,
        /// Why the step has failed.
        reason: String,
    },
    /// Something connects to an SSH agent of the client, which is to open `POST /build/agent?connection=…` and upgrade it to `tcp`:
    /// the connection then is the agent's.
    Agent {
        /// The agent's name.
        id: String,
        /// Names the connection.
        connection: String,
    },
    /// Why a step was, or was not, taken from the cache.
    Explained {
        /// The step.
        step: usize,
        /// The reason.
        reason: String,
    },
    /// A step is done.
    Ended {
        /// Which.
        step: usize,
        /// It was taken from the cache.
        cached: bool,
        /// Bytes of the files in its layer, where it made one.
        layer_bytes: Option<u64>,
    },
    /// A step has failed, and the build with it.
    Failed {
        /// Which.
        step: usize,
        /// Why, in a sentence.
        error: String,
    },
    /// All steps are done, and their result is made what was asked for.
    Publishing,
    /// Something begins that is no step.
    Task {
        /// What.
        name: String,
    },
    /// It has ended.
    TaskEnded {
        /// What.
        name: String,
        /// Why it failed, if it has.
        error: Option<String>,
    },
    /// Something had better be written otherwise.
    Found(BuildFinding),
    /// Everything that was to be found has been told (`check=1`); nothing is built.
    Checked,
    /// What was asked (`call=targets`, `call=outline`); nothing is built.
    Answered {
        /// For programs.
        document: serde_json::Value,
        /// For people.
        text: String,
    },
    /// Something that the user should know.
    Warning {
        /// A sentence.
        text: String,
    },
    /// A part of an archive for the client: an output, or a cache as an OCI layout.
    Piece {
        /// Which: [`STREAM_CACHE`], or [`STREAM_OUTPUT`] and a number.
        stream: String,
        /// Base64 of the bytes.
        data: String,
    },
    /// Everything is made.
    Built {
        /// The image's ID; empty where the engine keeps none.
        id: String,
        /// The descriptor of the manifest or index of an image that went elsewhere.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        manifest: Option<serde_json::Value>,
        /// Its names.
        tags: Vec<String>,
        /// Steps that were done.
        steps: usize,
        /// Of those, taken from the cache.
        cached: usize,
        /// The largest files of the image with their bytes (`largest=3`).
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        largest: Vec<(String, u64)>,
    },
}
