//! COPY and ADD: files of the context, of stages and images, into a layer.

use crate::apart::Below;
use crate::cache::Inputs;
use crate::chmod::Chmod;
use crate::context::Context;
use crate::error::{Doing, Error, Result};
use crate::language::{Heredoc, Transfer};
use crate::select::Selected;
use crate::source::{Group, Source, groups};
use crate::stage::{LayerStep, Made, Stage};
use images::archive::{self, ExtractOptions};
use images::copy::{self, Copy, Found, Want};
use images::tar::{Entry, Kind, Time};
use images::{Stop, changes};
use rustix::fs::{Mode, OFlags};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use sys::root::Root;

/// The mode of files that are written in the Dockerfile.
const DOCUMENT_MODE: u32 = 0o644;
/// The mode of directories that are made for a target, and what they have at most of an octal `--chmod`: BuildKit makes them
/// with that mode, as far as its umask lets it.
const DIRECTORY_MODE: u32 = 0o755;

/// A file that is written in the Dockerfile.
struct Document {
    /// The here-document's name as it is written.
    written: String,
    /// The name of the file.
    name: String,
    body: String,
}

/// The instruction with its variables replaced.
pub(crate) struct Order {
    pub(crate) target: String,
    /// The target as it is written.
    written: String,
    pub(crate) sources: Vec<String>,
    documents: Vec<Document>,
    chown: Option<String>,
    chmod: Option<Chmod>,
    pub(crate) excludes: Vec<String>,
    pub(crate) parents: bool,
    link: bool,
    /// The mode as it is written.
    chmod_text: Option<String>,
    /// Files keep their owners.
    keeps_owner: bool,
}

impl Order {
    /// As it is in the history, which names what is done and not where it comes from.
    fn told(&self, verb: &str) -> String {
        let mut words = vec![verb.to_owned()];
        words.extend(self.parents.then(|| "--parents".to_owned()));
        words.extend(self.chown.iter().map(|owner| format!("--chown={owner}")));
        words.extend(self.chmod_text.iter().map(|mode| format!("--chmod={mode}")));
        words.extend(self.sources.iter().cloned());
        let documents = self.documents.iter();
        words.extend(documents.map(|document| format!("<<{}", document.written)));
        words.extend([self.written.clone(), "# buildkit".to_owned()]);
        words.join(" ")
    }
}

/// Does COPY or ADD.
pub(crate) fn transfer(
    stage: &mut Stage<'_, '_>,
    text: &str,
    transfer: &Transfer,
    add: bool,
) -> Result<()> {
    let order = order(stage, transfer)?;
    let groups = groups(stage, transfer, &order, add)?;
    check_target(stage, &order, &groups)?;
    let below = match order.link {
        true => Some(Below::look(stage, owner(stage, &order)?, &order.target)?),
        false => None,
    };
    let inputs = inputs(stage, &order, &groups, below.as_ref())?;
    let step = LayerStep {
        text,
        told: order.told(if add { "ADD" } else { "COPY" }),
        inputs,
        is_apart: order.link,
    };
    stage.layer_step(step, |stage| make(stage, &order, &groups, below.as_ref()))
}

fn order(stage: &Stage<'_, '_>, transfer: &Transfer) -> Result<Order> {
    let word = |text: &String| stage.word(text);
    let sources = transfer.sources.iter().map(word).collect::<Result<_>>()?;
    let written = stage.word(&transfer.target)?;
    let target = match written.starts_with('/') {
        true => written.clone(),
        false => format!("{}/{written}", stage.config.config.working_dir),
    };
    let is_directory =
        written.ends_with('/') || written.ends_with("/.") || written == "." || written.is_empty();
    let mut target = changes::working_dir("/", &target);
    if is_directory && target != "/" {
        target.push('/');
    }
    let given = |text: &String| !text.is_empty();
    let chmod_text = transfer.chmod.as_ref().map(word).transpose()?.filter(given);
    let chmod = chmod_text.as_ref().map(|text| {
        Chmod::parse(text)
            .ok_or_else(|| Error::Invalid(format!("invalid chmod parameter: '{text}'")))
    });
    let document = |heredoc: &Heredoc| {
        let body = match heredoc.expand {
            true => stage
                .scope
                .document(&heredoc.body(), &stage.config.config.env)?,
            false => heredoc.body(),
        };
        Ok(Document {
            written: heredoc.name.clone(),
            name: file_name(heredoc)?.to_owned(),
            body,
        })
    };
    Ok(Order {
        target,
        written,
        sources,
        documents: transfer
            .documents
            .iter()
            .map(document)
            .collect::<Result<_>>()?,
        chown: transfer.chown.as_ref().map(word).transpose()?.filter(given),
        chmod: chmod.transpose()?,
        chmod_text,
        excludes: transfer.excludes.iter().map(word).collect::<Result<_>>()?,
        parents: transfer.parents,
        link: transfer.link,
        keeps_owner: transfer.from.is_some(),
    })
}

/// The name of the file that a here-document becomes.
pub(crate) fn file_name(heredoc: &Heredoc) -> Result<&str> {
    heredoc.file_name().ok_or_else(|| {
        let name = &heredoc.name;
        Error::Invalid(format!(
            "a here-document becomes one file: {name:?} is none, or in a directory"
        ))
    })
}

/// Refuses several files for what is no directory: each would take the place of the one before it.
fn check_target(stage: &Stage<'_, '_>, order: &Order, groups: &[Group<'_, '_>]) -> Result<()> {
    let sources = groups.iter().flat_map(|group| &group.selection.sources);
    let mut found = sources.filter(|selected| !selected.found.is_empty());
    let count = order.documents.len() + found.clone().count();
    let several = groups.iter().any(|group| group.selection.several) || count > 1;
    if !several || order.target.ends_with('/') || order.parents {
        return Ok(());
    }
    // A directory that comes first makes the target one.
    if found.next().is_some_and(|first| first.is_directory) {
        return Ok(());
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let target = Path::new(&order.target);
    let view = stage.build.view(&stage.layers)?;
    match view.root.open_at(target, flags, Mode::empty()) {
        Ok(_) => Ok(()),
        Err(_) => {
            let text = "When using COPY with more than one source file, the destination must be a directory and end with a /";
            Err(Error::Invalid(text.to_owned()))
        }
    }
}

/// Everything that the layer depends on. Times are no part of it.
fn inputs(
    stage: &Stage<'_, '_>,
    order: &Order,
    groups: &[Group<'_, '_>],
    below: Option<&Below>,
) -> Result<Inputs> {
    let mut inputs = match below {
        Some(below) => {
            let mut inputs = Inputs::new("transfer apart", &[]);
            below.add_to(&mut inputs);
            inputs
        }
        None => Inputs::new("transfer", &stage.layers),
    };
    inputs.add("the target", &order.target);
    inputs.add("--chown", order.chown.as_deref().unwrap_or_default());
    inputs.add("--chmod", &format!("{:?}", order.chmod));
    let unpack = groups.iter().map(|group| group.unpack).collect::<Vec<_>>();
    inputs.add(
        "its flags",
        &format!("{} {unpack:?} {}", order.parents, order.keeps_owner),
    );
    if let Some(epoch) = stage.build.epoch {
        inputs.add("SOURCE_DATE_EPOCH", &epoch.to_string());
    }
    for Document { name, body, .. } in &order.documents {
        inputs.add(format!("the document {name}"), body);
    }
    let sources = groups.iter().flat_map(|group| {
        let sources = group.selection.sources.iter();
        sources.map(|selected| (&group.source, selected))
    });
    for (at, (source, selected)) in (1..).zip(sources) {
        // What it is copied to may have its name, which is not that of the file where a link leads to one.
        let name = selected.source.file_name().unwrap_or(OsStr::new(""));
        inputs.add(format!("the source {at}"), &format!("{name:?}"));
        let stop = || stage.build.is_stopped();
        add_files(&mut inputs, source, selected, order.keeps_owner, &stop)?;
    }
    Ok(inputs)
}

/// Adds the files of a source as they count: their modes, owners, attributes and contents.
fn add_files(
    inputs: &mut Inputs,
    source: &Source<'_, '_>,
    selected: &Selected,
    keeps_owner: bool,
    stop: Stop<'_>,
) -> Result<()> {
    let path = |found: &Found| clean(&selected.real.join(&found.path));
    let files = { selected.found.iter() }.filter(|found| found.entry.kind == Kind::File);
    let files = files.map(|found| (found.layer, path(found))).collect();
    let digests = source.digests(files, stop);
    let mut digests = digests
        .doing(|| format!("read {:?}", selected.source))?
        .into_iter();
    for found in &selected.found {
        let Entry {
            kind,
            mode,
            uid,
            gid,
            xattrs,
            ..
        } = &found.entry;
        let owner = if keeps_owner { (*uid, *gid) } else { (0, 0) };
        let content = match kind {
            Kind::File => digests.next().expect("every file has one").to_string(),
            kind => format!("{kind:?}"),
        };
        let value = format!(
            "{mode:o} {owner:?} {xattrs:?} {content} {:?}",
            selected.kept
        );
        inputs.add(format!("the file {}", path(found).display()), &value);
    }
    Ok(())
}

/// A path of a source: its start joined with nothing would get a slash, which a file must not have.
fn clean(path: &Path) -> PathBuf {
    path.components().collect()
}

/// The user and group that files get; `None` where they keep theirs.
fn owner(stage: &Stage<'_, '_>, order: &Order) -> Result<Option<(u32, u32)>> {
    let Some(chown) = &order.chown else {
        return Ok((!order.keeps_owner).then_some((0, 0)));
    };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    // A name alone is of a user with a group; a number alone is the group's, too, unless a colon says that there is none.
    let spec = match chown.strip_suffix(':') {
        Some(user) if is_number(user) => format!("{user}:0"),
        Some(user) => user.to_owned(),
        None if is_number(chown) => format!("{chown}:{chown}"),
        None => chown.clone(),
    };
    let view = stage.build.view(&stage.layers)?;
    let spec = with_root(&view.root, &spec);
    let user = engine::resolve_user(&view.root, &spec, &[]);
    let user = user.map_err(|error| Error::Invalid(format!("--chown={chown}: {error}")))?;
    Ok(Some((user.uid, user.gid)))
}

/// A user and group with the number of root, where nothing in the image says what that is: `root` is known without.
fn with_root(root: &Root, spec: &str) -> String {
    let number = |name: &str, table: &str| match name {
        "root" if root.resolve(Path::new(table)).is_err() => "0".to_owned(),
        name => name.to_owned(),
    };
    match spec.split_once(':') {
        Some((user, group)) => {
            let (user, group) = (number(user, "/etc/passwd"), number(group, "/etc/group"));
            format!("{user}:{group}")
        }
        None if number(spec, "/etc/passwd") == "0" => "0:0".to_owned(),
        None => spec.to_owned(),
    }
}

fn make<'a>(
    stage: &Stage<'_, 'a>,
    order: &Order,
    groups: &[Group<'_, '_>],
    below: Option<&Below>,
) -> Result<Made<'a>> {
    let view = stage
        .build
        .view(if below.is_some() { &[] } else { &stage.layers })?;
    let owner = match below {
        Some(below) => {
            below.make_directories(&view.root)?;
            below.owner
        }
        None => owner(stage, order)?,
    };
    let mut filler = Filler {
        copy: Copy::new(&view.root),
        to: &view.root,
        owner,
        order,
        newest_s: stage.time_s(),
        default_s: stage.time_s(),
    };
    for group in groups {
        for selected in &group.selection.sources {
            stage.build.check_stop()?;
            filler.source(group, selected)?;
        }
    }
    for Document { name, body, .. } in &order.documents {
        filler.document(name, body)?;
    }
    let newest_s = filler.newest_s;
    let rest = filler.copy.rest();
    // What the copying itself has changed, directories on the way, is as old as the files: the same files are the same layer.
    let times = stage.build.epoch.unwrap_or(newest_s);
    let made = view.into_layer(rest, times, &|| stage.build.is_stopped());
    made.doing(|| "make a layer of the files".to_owned())
}

/// Fills a tree with what an instruction brings.
struct Filler<'t, 'f> {
    copy: Copy<'t, 'f>,
    to: &'t Root,
    owner: Option<(u32, u32)>,
    order: &'t Order,
    /// The time of the newest file, in seconds since 1970.
    newest_s: i64,
    /// The time of files that have none.
    default_s: i64,
}

impl<'f> Filler<'_, 'f> {
    fn source(&mut self, group: &'f Group<'_, '_>, selected: &Selected) -> Result<()> {
        let target = self.target_of(selected);
        let from = group.source.root();
        let has_files = !selected.found.is_empty();
        if group.unpack && has_files && !selected.is_directory && self.unpacked(from, selected)? {
            return Ok(());
        }
        match &selected.kept {
            Some(kept) => self.kept_directories(&group.source, &selected.source, kept)?,
            None if selected.is_directory => self.make_directories(&target, self.mode_of_way())?,
            None => self.make_way_to(&target)?,
        }
        for found in &selected.found {
            let is_start = found.path.as_os_str().is_empty();
            // A directory stands for what is in it, unless its path is kept.
            if is_start && selected.is_directory && selected.kept.is_none() {
                continue;
            }
            let source = clean(&selected.real.join(&found.path));
            let to = clean(&target.join(&found.path));
            self.put(&group.source, &source, &to, found)?;
        }
        Ok(())
    }

    fn put(
        &mut self,
        from: &'f Source<'_, '_>,
        source: &Path,
        to: &Path,
        found: &Found,
    ) -> Result<()> {
        let mut entry = found.entry.clone();
        self.adjust(&mut entry);
        let root = from.root_of(found);
        let gives = |files: &Context| entry == found.entry && files.gives(source);
        let put = match entry.kind {
            Kind::File if from.files().is_some_and(gives) => {
                self.copy.share(root, source, to, &entry)
            }
            Kind::File => self.copy.bring(root, source, to, &entry),
            _ => self.copy.put(root, source, to, &entry),
        };
        put.doing(|| format!("copy {source:?} to {to:?}"))
    }

    /// The mode of directories that are made for files.
    fn mode_of_way(&self) -> u32 {
        match self.order.chmod {
            Some(Chmod::Set(mode)) => mode & DIRECTORY_MODE,
            _ => DIRECTORY_MODE,
        }
    }

    /// Makes the directories on the way to a file.
    fn make_way_to(&self, file: &Path) -> Result<()> {
        let parent = file.parent().unwrap_or(Path::new("/"));
        self.make_directories(parent, self.mode_of_way())
    }

    /// Makes a directory and those on the way to it, of the user that the instruction names.
    fn make_directories(&self, target: &Path, mode: u32) -> Result<()> {
        let doing = || format!("make the directory {target:?}");
        let mut way: Vec<&Path> = target.ancestors().collect();
        way.reverse();
        for path in way {
            if self.is_directory(path) {
                continue;
            }
            if self.to.resolve(path).is_ok() {
                return Err(Error::Invalid(format!(
                    "cannot copy to non-directory: {}",
                    path.display()
                )));
            }
            let made = self.to.create_dir_all(path, Mode::from_raw_mode(mode));
            made.doing(doing)?;
            if let Some((uid, gid)) = self.owner.filter(|_| self.order.chown.is_some()) {
                let fd = self
                    .to
                    .open_at(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty());
                let owned = std::os::unix::fs::fchown(fd.doing(doing)?, Some(uid), Some(gid));
                owned.doing(doing)?;
            }
        }
        Ok(())
    }

    /// With `--parents`: the directories on the way to a source are copied, without what is in them.
    fn kept_directories(
        &mut self,
        from: &'f Source<'_, '_>,
        source: &Path,
        kept: &Path,
    ) -> Result<()> {
        let target = Path::new(&self.order.target);
        self.make_directories(target, self.mode_of_way())?;
        let mut way: Vec<(&Path, &Path)> =
            source.ancestors().zip(kept.ancestors()).skip(1).collect();
        way.reverse();
        let alone = |below: &Path| match below.as_os_str().is_empty() {
            true => Want::Take,
            false => Want::Leave,
        };
        for (source, kept) in way
            .into_iter()
            .filter(|(_, kept)| !kept.as_os_str().is_empty())
        {
            let to = clean(&target.join(kept));
            let found = copy::find(from.root(), source, true, &alone);
            let found = found.doing(|| format!("read {source:?}"))?;
            // A directory that is there keeps its own attributes.
            if let Some(first) = found.first().filter(|_| !self.is_directory(&to)) {
                self.put(from, source, &to, first)?;
            }
        }
        Ok(())
    }

    /// Where a source goes: a file into a directory, or in the place of what is named.
    fn target_of(&self, selected: &Selected) -> PathBuf {
        let target = Path::new(&self.order.target);
        if let Some(kept) = &selected.kept {
            return target.join(kept);
        }
        let name = selected.source.file_name().unwrap_or(OsStr::new(""));
        match !selected.is_directory && self.means_directory() {
            true => target.join(name),
            false => target.to_owned(),
        }
    }

    /// Whether the target is a directory, by its slash or because there is one.
    fn means_directory(&self) -> bool {
        self.order.target.ends_with('/') || self.is_directory(Path::new(&self.order.target))
    }

    fn is_directory(&self, path: &Path) -> bool {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        self.to.open_at(path, flags, Mode::empty()).is_ok()
    }

    fn adjust(&mut self, entry: &mut Entry) {
        if let Some((uid, gid)) = self.owner {
            (entry.uid, entry.gid) = (uid, gid);
        }
        let is_directory = entry.kind == Kind::Directory;
        if let Some(chmod) = self
            .order
            .chmod
            .as_ref()
            .filter(|_| !matches!(entry.kind, Kind::Symlink { .. }))
        {
            entry.mode = chmod.apply(entry.mode, is_directory);
        }
        self.newest_s = self.newest_s.max(entry.mtime.seconds);
    }

    /// Unpacks an archive where it is one.
    fn unpacked(&mut self, from: &Root, selected: &Selected) -> Result<bool> {
        let doing = || format!("unpack {:?}", selected.source);
        let open = || {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
            from.open_at(&selected.real, flags, Mode::empty())
                .map(std::fs::File::from)
        };
        if !archive::is_archive(open().doing(doing)?).doing(doing)? {
            return Ok(false);
        }
        let target = Path::new(&self.order.target);
        self.make_directories(target, DIRECTORY_MODE)?;
        let options = ExtractOptions {
            owner: self.owner.filter(|_| self.order.chown.is_some()),
            ..ExtractOptions::default()
        };
        archive::extract(self.to, target, open().doing(doing)?, &options).doing(doing)?;
        // The times of an archive are its own.
        self.newest_s = i64::MAX;
        Ok(true)
    }

    fn document(&mut self, name: &str, body: &str) -> Result<()> {
        let target = Path::new(&self.order.target);
        let to = match self.means_directory() {
            true => target.join(name),
            false => target.to_owned(),
        };
        let mut entry = Entry {
            mtime: Time {
                seconds: self.default_s,
                nanoseconds: 0,
            },
            ..Entry::new("", Kind::File, DOCUMENT_MODE)
        };
        self.make_way_to(&to)?;
        self.adjust(&mut entry);
        let put = self.copy.put_bytes(body.as_bytes(), &clean(&to), &entry);
        put.doing(|| format!("write {to:?}"))
    }
}
