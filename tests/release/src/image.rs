//! The component as an OCI image: one manifest, one configuration, one layer, in the form that tools for WebAssembly take.
//!
//! The image is an archive of an OCI layout, so that any tool puts it into any registry with its digest unchanged. Its time is that of the
//! commit, since the form wants one. Puts nothing into a registry itself.

use crate::archive::{Files, tar, untar};
use crate::checkout::Checkout;
use crate::{contract, sha256, stamp};
use anyhow::{Context as _, Result, ensure};
use oci_spec::image::{
    Descriptor, DescriptorBuilder, ImageIndex, ImageIndexBuilder, ImageManifest,
    ImageManifestBuilder, MediaType, OciLayoutBuilder, SCHEMA_VERSION,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// Of the manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Of the configuration.
pub const CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// Of the layer.
pub const LAYER: &str = "application/wasm";
const TITLE: &str = "org.opencontainers.image.title";
const REFERENCE: &str = "org.opencontainers.image.ref.name";

/// The configuration of an image of WebAssembly.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// When it was made: the time of the commit.
    pub created: String,
    /// `wasm`.
    pub architecture: String,
    /// `wasip2` of every component, also of one without WASI.
    pub os: String,
    /// Digests of the layers.
    pub layer_digests: Vec<String>,
    /// What the component wants and gives.
    pub component: Component,
}

/// What the component wants and gives, as tools index it.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Component {
    /// Names of its exports.
    pub exports: Vec<String>,
    /// Names of its imports.
    pub imports: Vec<String>,
    /// The world that it is of.
    pub target: String,
}

/// An image.
pub struct Image {
    /// The tag: the bare version.
    pub tag: String,
    /// The manifest, as its digest is made of.
    pub manifest: Vec<u8>,
    /// Configuration and layer, by digest.
    pub blobs: BTreeMap<String, Vec<u8>>,
}

impl Image {
    /// The image of a component.
    ///
    /// # Errors
    /// It is no component.
    pub fn new(checkout: &Checkout, component: &[u8], file: &str) -> Result<Self> {
        let digest = digest(component);
        let (imports, exports) = contract::names(component)?;
        let version = &checkout.version;
        let config = Config {
            created: checkout.committed.clone(),
            architecture: "wasm".into(),
            os: "wasip2".into(),
            layer_digests: vec![digest.clone()],
            component: Component {
                exports,
                imports,
                target: format!("qm2:coordination/coordinator@{version}"),
            },
        };
        let config = serde_json::to_vec(&config)?;
        let mut layer = descriptor(LAYER, component)?;
        layer.set_annotations(Some(HashMap::from([(TITLE.to_owned(), file.to_owned())])));
        let manifest = ImageManifestBuilder::default()
            .schema_version(SCHEMA_VERSION)
            .media_type(MediaType::ImageManifest)
            .config(descriptor(CONFIG, &config)?)
            .layers(vec![layer])
            .annotations(HashMap::from_iter(stamp::annotations(component)?))
            .build()?;
        Ok(Self {
            tag: version.clone(),
            manifest: sorted(&manifest)?,
            blobs: BTreeMap::from([
                (self::digest(&config), config),
                (digest, component.to_vec()),
            ]),
        })
    }

    /// Digest of the manifest.
    #[must_use]
    pub fn digest(&self) -> String {
        digest(&self.manifest)
    }

    /// As an archive of an OCI layout.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn archive(&self) -> Result<Vec<u8>> {
        let mut manifest = descriptor(MANIFEST, &self.manifest)?;
        manifest.set_annotations(Some(HashMap::from([(
            REFERENCE.to_owned(),
            self.tag.clone(),
        )])));
        let index = ImageIndexBuilder::default()
            .schema_version(SCHEMA_VERSION)
            .media_type(MediaType::ImageIndex)
            .manifests(vec![manifest])
            .build()?;
        let layout = OciLayoutBuilder::default()
            .image_layout_version("1.0.0")
            .build()?;
        let mut files = Files::from([
            ("index.json".to_owned(), sorted(&index)?),
            ("oci-layout".to_owned(), sorted(&layout)?),
            (blob(&self.digest()), self.manifest.clone()),
        ]);
        let blobs = self.blobs.iter();
        files.extend(blobs.map(|(digest, bytes)| (blob(digest), bytes.clone())));
        tar(&files)
    }

    /// The image in an archive of an OCI layout.
    ///
    /// # Errors
    /// It is none, or something in it is not what its digest says.
    pub fn of_archive(bytes: &[u8]) -> Result<Self> {
        let files = untar(bytes)?;
        let file = |name: &str| files.get(name).with_context(|| format!("it has no {name}"));
        let index: ImageIndex = serde_json::from_slice(file("index.json")?)?;
        let [entry] = index.manifests().as_slice() else {
            anyhow::bail!("the index has not one manifest");
        };
        let annotations = entry.annotations().as_ref();
        let tag = annotations.and_then(|annotations| annotations.get(REFERENCE));
        let manifest = file(&blob(entry.digest().as_ref()))?.clone();
        let parsed: ImageManifest = serde_json::from_slice(&manifest)?;
        let mut image = Self {
            tag: tag.context("the manifest has no tag")?.clone(),
            manifest,
            blobs: BTreeMap::new(),
        };
        let said: &str = entry.digest().as_ref();
        ensure!(image.digest() == said, "the manifest is not {said}");
        for descriptor in parsed.layers().iter().chain([parsed.config()]) {
            let said = descriptor.digest().to_string();
            let bytes = file(&blob(&said))?.clone();
            ensure!(digest(&bytes) == said, "a blob is not {said}");
            image.blobs.insert(said, bytes);
        }
        Ok(image)
    }
}

/// As OCI writes a digest.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", sha256(bytes))
}

/// Where a layout keeps it.
fn blob(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
    let digest: oci_spec::image::Digest = digest(bytes).parse()?;
    let descriptor = DescriptorBuilder::default()
        .media_type(media_type)
        .digest(digest)
        .size(bytes.len() as u64);
    Ok(descriptor.build()?)
}

/// Members in one order: those of the libraries' maps differ from run to run.
fn sorted(value: &impl Serialize) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(&serde_json::to_value(value)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkout::COMPONENT;
    use crate::contract::tests::component;

    fn image() -> Image {
        let checkout = Checkout::here().expect("a clone");
        let stamped = stamp::stamped(&checkout, COMPONENT, &component());
        Image::new(&checkout, &stamped.expect("it is stamped"), "c.wasm").expect("an image")
    }

    #[test]
    fn image_goes_through_its_archive_and_is_made_alike_each_time() {
        let image = image();
        let archive = image.archive().expect("it is packed");
        let again = Image::of_archive(&archive).expect("it is unpacked");
        assert_eq!(again.tag, image.tag);
        assert_eq!(again.manifest, image.manifest);
        assert_eq!(again.blobs, image.blobs);
        for _ in 0..8 {
            // Maps of the libraries have another order each time.
            assert_eq!(self::image().archive().expect("it is packed"), archive);
        }
    }

    #[test]
    fn archive_with_another_byte_in_a_blob_is_refused() {
        let image = image();
        let archive = image.archive().expect("it is packed");
        for name in image.blobs.keys().chain([&image.digest()]) {
            let mut files = untar(&archive).expect("it is unpacked");
            let blob = files.get_mut(&blob(name)).expect("it is there");
            let place = blob.iter().rposition(u8::is_ascii_digit).expect("a digit");
            blob[place] ^= 1;
            let changed = tar(&files).expect("it is packed");
            assert!(Image::of_archive(&changed).is_err(), "{name}");
        }
    }

    #[test]
    fn annotations_are_what_the_component_says_of_itself() {
        let checkout = Checkout::here().expect("a clone");
        let manifest: serde_json::Value =
            serde_json::from_slice(&image().manifest).expect("it is JSON");
        let said = |name: &str| {
            manifest["annotations"][format!("org.opencontainers.image.{name}")].clone()
        };
        assert_eq!(said("version"), checkout.version.as_str());
        assert_eq!(said("revision"), checkout.revision.as_str());
        assert_eq!(said("licenses"), checkout.license.as_str());
        assert_eq!(said("description"), COMPONENT.description);
        assert_eq!(said("authors"), serde_json::Value::Null);
    }
}
