//! `cargo xtask image`: a container image with nothing but the static `kubenap`, written without a container engine.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use flate2::{Compression, GzBuilder};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use crate::e2e::{build, say};

/// What the chart asks for when nobody says otherwise.
pub(crate) const NAME: &str = "kubenap.dev/kubenap";
/// The image is no larger.
const LIMIT: usize = 15_000_000;
/// Nobody; a number, so that a cluster can tell without a user database that it is not root.
const USER: &str = "65532:65532";

/// Makes a container image with nothing but the static program.
///
/// The file is both an OCI layout and what `docker save` writes: `ctr images import`, `docker load`, `skopeo copy
/// oci-archive:…` take it. The same program makes the same file.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where to write it
    #[arg(long, value_name = "FILE", default_value = "kubenap.tar")]
    out: PathBuf,
    /// Its name and tag [default: kubenap.dev/kubenap and the version]
    #[arg(long, value_name = "NAME:TAG")]
    name: Option<String>,
}

/// Builds and writes it; says its name, digest and size on standard output.
pub(crate) async fn run(args: Args) -> Result<()> {
    let program = build::static_kubenap().await?;
    let name = args.name.unwrap_or_else(|| format!("{NAME}:{}", env!("CARGO_PKG_VERSION")));
    let image = Image::of(&[program])?;
    let whole = image.archive(std::slice::from_ref(&name))?;
    ensure!(whole.len() <= LIMIT, "the image has {} bytes, more than {LIMIT}", whole.len());
    fs::write(&args.out, &whole).with_context(|| format!("write {}", args.out.display()))?;
    say(&format!("{}: {:.1} MB", args.out.display(), megabytes(whole.len())));
    writeln!(io::stdout(), "{name}@sha256:{}", image.digest())?;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
fn megabytes(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}

/// An image of one layer.
pub(crate) struct Image {
    layer: Vec<u8>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

impl Image {
    /// An image that holds the first of these files as `/kubenap`, and each of the others where it is here.
    pub(crate) fn of(files: &[PathBuf]) -> Result<Self> {
        let mut packed = Vec::new();
        for (nth, file) in files.iter().enumerate() {
            let content = fs::read(file).with_context(|| format!("read {}", file.display()))?;
            let path = if nth == 0 { Path::new("kubenap") } else { file.strip_prefix("/").unwrap_or(file) };
            packed.push((path.display().to_string(), 0o755, content));
        }
        let packed: Vec<_> =
            packed.iter().map(|(path, mode, content)| (path.as_str(), *mode, content.as_slice())).collect();
        Self::around(&packed)
    }

    fn around(files: &[(&str, u32, &[u8])]) -> Result<Self> {
        let plain = tar(files)?;
        let layer = gzip(&plain)?;
        let config = bytes(&json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": ["/kubenap"], "User": USER, "WorkingDir": "/", "Env": ["PATH=/"]},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256(&plain))]},
        }))?;
        let manifest = bytes(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &layer)],
        }))?;
        Ok(Self { layer, config, manifest })
    }

    /// The manifest's digest, by which a registry knows the image.
    pub(crate) fn digest(&self) -> String {
        sha256(&self.manifest)
    }

    /// The image as one file, under these names.
    pub(crate) fn archive(&self, names: &[String]) -> Result<Vec<u8>> {
        let blob = |content: &[u8]| format!("blobs/sha256/{}", sha256(content));
        let manifests = names.iter().map(|name| {
            let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &self.manifest);
            let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
            // The first is containerd's and docker's, the second everybody else's.
            entry["annotations"] =
                json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag});
            entry
        });
        let index = bytes(&json!({"schemaVersion": 2, "manifests": manifests.collect::<Vec<_>>()}))?;
        let docker = bytes(&json!([
            {"Config": blob(&self.config), "RepoTags": names, "Layers": [blob(&self.layer)]}
        ]))?;
        tar(&[
            ("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#),
            ("index.json", 0o644, &index),
            ("manifest.json", 0o644, &docker),
            (&blob(&self.manifest), 0o644, &self.manifest),
            (&blob(&self.config), 0o644, &self.config),
            (&blob(&self.layer), 0o644, &self.layer),
        ])
    }
}

/// Without a name and a time in its head: the same bytes each time.
fn gzip(content: &[u8]) -> Result<Vec<u8>> {
    let mut packer = GzBuilder::new().write(Vec::new(), Compression::default());
    packer.write_all(content).and_then(|()| packer.finish()).context("pack the layer")
}

/// A tar of these files, owned by root, of no time.
fn tar(files: &[(&str, u32, &[u8])]) -> Result<Vec<u8>> {
    let mut archive = Builder::new(Vec::new());
    for (path, mode, content) in files {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(*mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, path, *content).with_context(|| format!("pack {path}"))?;
    }
    archive.into_inner().context("pack the image")
}

fn descriptor(kind: &str, content: &[u8]) -> Value {
    json!({"mediaType": kind, "digest": format!("sha256:{}", sha256(content)), "size": content.len()})
}

fn bytes(value: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(value).context("write JSON")
}

fn sha256(content: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for byte in digest(&SHA256, content).as_ref() {
        // Writing into a String cannot fail.
        write!(text, "{byte:02x}").unwrap_or(());
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use super::{Image, sha256, tar};

    fn files(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().expect("an archive");
        entries
            .map(|entry| {
                let mut entry = entry.expect("an entry");
                let mut content = Vec::new();
                entry.read_to_end(&mut content).expect("its content");
                (entry.path().expect("its path").display().to_string(), content)
            })
            .collect()
    }

    #[test]
    fn the_image_holds_the_program_and_nothing_else_and_every_blob_is_what_its_name_says() {
        let image = Image::around(&[("kubenap", 0o755, b"a program")]).expect("an image");
        let all = files(&image.archive(&["n:1".to_owned(), "n:2".to_owned()]).expect("an archive"));
        let find = |name: &str| &all.iter().find(|(path, _)| path == name).expect(name).1;
        for (path, content) in all.iter().filter(|(path, _)| path.starts_with("blobs/")) {
            assert_eq!(*path, format!("blobs/sha256/{}", sha256(content)));
        }
        let docker: serde_json::Value = serde_json::from_slice(find("manifest.json")).expect("JSON");
        assert_eq!(docker[0]["RepoTags"], serde_json::json!(["n:1", "n:2"]));
        let layer = find(docker[0]["Layers"][0].as_str().expect("a layer"));
        let mut plain = Vec::new();
        GzDecoder::new(layer.as_slice()).read_to_end(&mut plain).expect("a packed layer");
        assert_eq!(files(&plain), [("kubenap".to_owned(), b"a program".to_vec())]);
        let config: serde_json::Value =
            serde_json::from_slice(find(docker[0]["Config"].as_str().expect("a config"))).expect("JSON");
        assert_eq!(config["config"]["User"], "65532:65532");
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", sha256(&plain)));
    }

    #[test]
    fn the_same_program_makes_the_same_image() {
        let program: &[(&str, u32, &[u8])] = &[("kubenap", 0o755, b"a program")];
        let image = || Image::around(program).expect("an image").archive(&["n:1".to_owned()]);
        assert_eq!(image().expect("an archive"), image().expect("an archive"));
        assert_ne!(tar(&[("a", 0o644, b"x")]).expect("a tar"), tar(&[("b", 0o644, b"x")]).expect("a tar"));
    }
}
