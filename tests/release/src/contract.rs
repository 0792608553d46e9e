//! The contract of the component: the WIT package, what a built component really imports and exports, and whether both keep what an
//! earlier release promised.
//!
//! A host is built for a release and may be given any later one of its line (the same minor version of 0.x, the same major version
//! from 1 on). So a later one exports at least as much, imports no more, and every type stays what it was. Bytes and behaviour are not
//! looked at here.

use anyhow::{Context as _, Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use wit_component::{DecodedWasm, OutputToString, WitPrinter, semver_check, targets};
use wit_parser::{InterfaceId, PackageId, Resolve, SourceMap, WorldId, WorldItem};

/// Name of the world that a component has.
const WORLD: &str = "coordinator";
/// Lines of a difference that are shown.
const SHOWN_MAX: usize = 12;

/// A WIT package with its world.
#[derive(Clone)]
pub struct Contract {
    resolve: Resolve,
    package: PackageId,
    world: WorldId,
}

impl Contract {
    /// The one of a folder of WIT files, in the order of their names.
    ///
    /// # Errors
    /// It cannot be read, or does not parse.
    pub fn of_folder(folder: &Path) -> Result<Self> {
        let mut paths = Vec::new();
        for entry in folder.read_dir().context("no folder of WIT")? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "wit") {
                paths.push(path);
            }
        }
        paths.sort();
        let mut sources = SourceMap::default();
        for path in &paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            sources.push_str(&name, &std::fs::read_to_string(path)?);
        }
        Self::parse(sources)
    }

    /// The one of a document, see [`document`].
    ///
    /// # Errors
    /// It does not parse.
    pub fn of_text(text: &str) -> Result<Self> {
        let mut sources = SourceMap::default();
        sources.push_str("contract.wit", text);
        Self::parse(sources)
    }

    fn parse(sources: SourceMap) -> Result<Self> {
        let mut resolve = Resolve::default();
        let parsed = sources
            .parse()
            .map_err(|(sources, error)| anyhow::anyhow!("{}", error.render(&sources)))?;
        resolve.push_group(parsed)?;
        let mut all = resolve.worlds.iter();
        let found = all.find(|(_, world)| world.name == WORLD && world.package.is_some());
        let (world, _) = found.with_context(|| format!("there is no world {WORLD}"))?;
        let package = resolve.worlds[world].package;
        Ok(Self {
            package: package.context("the world is in no package")?,
            world,
            resolve,
        })
    }

    /// The package as WebAssembly, with its documentation; what registries of WIT take.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub fn package_wasm(&self) -> Result<Vec<u8>> {
        wit_component::encode(&self.resolve, self.package, false)
    }

    /// The package in one text.
    ///
    /// # Errors
    /// It cannot be printed.
    pub fn package_text(&self) -> Result<String> {
        let mut printer = WitPrinter::default();
        printer.print(&self.resolve, self.package, &[])?;
        Ok(printer.output.to_string())
    }

    /// The version of the package.
    ///
    /// # Errors
    /// It has none.
    pub fn version(&self) -> Result<Version> {
        let version = self.resolve.packages[self.package].name.version.as_ref();
        let version = version.context("the package has no version")?;
        Ok(Version {
            major: version.major,
            minor: version.minor,
            patch: version.patch,
        })
    }

    /// Everything that it says, without its documentation.
    fn plain(&self) -> Result<String> {
        let mut printer = WitPrinter::default();
        printer.emit_docs(false);
        printer.print(&self.resolve, self.package, &[])?;
        Ok(printer.output.to_string())
    }

    /// Every function, as `import lanes.cancel`.
    fn functions(&self) -> BTreeSet<String> {
        let world = &self.resolve.worlds[self.world];
        let mut functions = BTreeSet::new();
        for (way, items) in [("import", &world.imports), ("export", &world.exports)] {
            for (key, item) in items {
                match item {
                    WorldItem::Interface { id, .. } => {
                        let interface = &self.resolve.interfaces[*id];
                        let of = interface.name.as_deref().unwrap_or_default();
                        let names = interface.functions.keys();
                        functions.extend(names.map(|name| format!("{way} {of}.{name}")));
                    }
                    WorldItem::Function(_) => {
                        let name = self.resolve.name_world_key(key);
                        functions.insert(format!("{way} {name}"));
                    }
                    WorldItem::Type { .. } => {}
                }
            }
        }
        functions
    }

    /// The lines of each interface, without documentation and since when they are there.
    fn interfaces(&self) -> Result<BTreeMap<String, Vec<String>>> {
        let package = &self.resolve.packages[self.package];
        let print = |id: InterfaceId| -> Result<Vec<String>> {
            let mut printer = WitPrinter::new(OutputToString::default());
            printer.emit_docs(false);
            printer.print_interface(&self.resolve, id)?;
            let text = printer.output.to_string();
            let lines = text.lines().map(str::trim);
            let lines = lines.filter(|line| !line.is_empty() && !line.starts_with("@since"));
            Ok(lines.map(str::to_owned).collect())
        };
        let named = package.interfaces.iter();
        named
            .map(|(name, id)| Ok((name.clone(), print(*id)?)))
            .collect()
    }

    /// Under a name that no other has, so that both fit beside each other.
    fn renamed(mut self, major: u64) -> Self {
        let package = &mut self.resolve.packages[self.package];
        let old = package.name.clone();
        if let Some(version) = &mut package.name.version {
            (version.major, version.minor, version.patch) = (major, 0, 0);
        }
        let new = package.name.clone();
        self.resolve.package_names.swap_remove(&old);
        self.resolve.package_names.insert(new, self.package);
        self
    }
}

/// A version of a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Major.
    pub major: u64,
    /// Minor.
    pub minor: u64,
    /// Patch.
    pub patch: u64,
}

impl Version {
    /// The one that a text such as `0.1.0` names.
    #[must_use]
    pub fn of_text(text: &str) -> Option<Self> {
        let numbers: Option<Vec<u64>> = text.split('.').map(|part| part.parse().ok()).collect();
        match numbers?.as_slice() {
            &[major, minor, patch] => Some(Self {
                major,
                minor,
                patch,
            }),
            _ => None,
        }
    }

    /// Whether a host of the one may be given the other.
    #[must_use]
    pub fn is_of_line(self, other: Self) -> bool {
        self.major == other.major && (self.major > 0 || self.minor == other.minor)
    }
}

/// What a component imports and exports, and the package that says it, as one document that parses.
///
/// # Errors
/// The component is not of this contract.
pub fn document(contract: &Contract, component: &[u8]) -> Result<String> {
    targets(&contract.resolve, contract.world, component, false)
        .context("the component is not of the world that the WIT has")?;
    let (decoded, root) = decode(component)?;
    let root = decoded.worlds[root].package.context("it has no package")?;
    let mut resolve = contract.resolve.clone();
    // Fails where a type of the component is not that of the package.
    let remap = resolve.merge(decoded)?;
    let root = remap.packages[root.index()];
    let mut printer = WitPrinter::default();
    printer.print(&resolve, root, &[contract.package])?;
    let text = printer.output.to_string();
    Ok(format!("{HEAD}\n{}\n", text.trim_end()))
}

const HEAD: &str =
    "// What the built component imports and exports, then the package that says what that is.
// Generated: `.ci/dist --bless`; `.ci/dist --contract` compares.
";

/// Names of what a component imports and exports.
///
/// # Errors
/// It is no component.
pub fn names(component: &[u8]) -> Result<(Vec<String>, Vec<String>)> {
    let (resolve, world) = decode(component)?;
    let world = &resolve.worlds[world];
    let names = |keys: &mut dyn Iterator<Item = &wit_parser::WorldKey>| {
        let mut names: Vec<String> = keys.map(|key| resolve.name_world_key(key)).collect();
        names.sort();
        names
    };
    Ok((
        names(&mut world.imports.keys()),
        names(&mut world.exports.keys()),
    ))
}

fn decode(component: &[u8]) -> Result<(Resolve, WorldId)> {
    match wit_component::decode(component)? {
        DecodedWasm::Component(resolve, world) => Ok((resolve, world)),
        DecodedWasm::WitPackage(..) => bail!("this is a package of WIT and no component"),
    }
}

/// Whether a host that was made for a release may be given this one.
///
/// # Errors
/// What was broken, or that the version has to be raised.
pub fn keeps(released: &Contract, present: &Contract) -> Result<()> {
    let (old, new) = (released.version()?, present.version()?);
    ensure!(new >= old, "the version went back from {old:?} to {new:?}");
    if new == old {
        let (was, is) = (released.plain()?, present.plain()?);
        let differs = difference(
            &was.lines().collect::<Vec<_>>(),
            &is.lines().collect::<Vec<_>>(),
        );
        return match differs {
            None => Ok(()),
            Some(says) => bail!("the version is that of a release, and the WIT is not:\n{says}"),
        };
    }
    if !new.is_of_line(old) {
        return Ok(());
    }
    let (was, is) = (released.functions(), present.functions());
    if let Some(gone) = was.difference(&is).next() {
        bail!("a function of the release is gone: {gone}");
    }
    let mut added = is.difference(&was);
    if let Some(import) = added.find(|name| name.starts_with("import ")) {
        bail!("hosts of the release do not have what is imported now: {import}");
    }
    // Hosts of the release implement the new one's imports and use its exports: it must fit where the old one fits.
    let mut resolve = present.clone().renamed(new.major + 1);
    let remap = resolve
        .resolve
        .merge(released.clone().renamed(new.major + 2).resolve)?;
    let old_world = remap.worlds[released.world.index()].context("the world is lost")?;
    semver_check(resolve.resolve, present.world, old_world)
        .with_context(|| changed(released, present).unwrap_or_default())
}

/// What the interfaces of a release say otherwise now.
fn changed(released: &Contract, present: &Contract) -> Result<String> {
    let (was, is) = (released.interfaces()?, present.interfaces()?);
    let mut text = String::from("a type or function of the release is not what it was");
    for (name, lines) in &was {
        let none = Vec::new();
        let now = is.get(name).unwrap_or(&none);
        if let Some(says) = difference(lines, now) {
            text += &format!("\ninterface {name}:\n{says}");
        }
    }
    Ok(text)
}

/// Lines that are only in one of two texts.
pub fn difference<T: AsRef<str>>(was: &[T], is: &[T]) -> Option<String> {
    let texts = |lines: &[T]| -> Vec<String> {
        lines.iter().map(|line| line.as_ref().to_owned()).collect()
    };
    let (was, is) = (texts(was), texts(is));
    if was == is {
        return None;
    }
    let only = |sign: &str, lines: &[String], other: &[String]| -> Vec<String> {
        let lines = lines.iter().filter(|line| !other.contains(line));
        lines.map(|line| format!("{sign} {line}")).collect()
    };
    let mut shown = [only("-", &was, &is), only("+", &is, &was)].concat();
    if shown.is_empty() {
        shown.push("the same lines in another order".into());
    }
    let more = shown.len().saturating_sub(SHOWN_MAX);
    shown.truncate(SHOWN_MAX);
    if more > 0 {
        shown.push(format!("and {more} more"));
    }
    Some(shown.join("\n"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use wit_component::{ComponentEncoder, StringEncoding, dummy_module, embed_component_metadata};
    use wit_parser::ManglingAndAbi;

    /// One without code, of the world of a contract.
    fn component_of(contract: &Contract) -> Vec<u8> {
        let (resolve, world) = (&contract.resolve, contract.world);
        let mut module = dummy_module(resolve, world, ManglingAndAbi::Standard32);
        embed_component_metadata(&mut module, resolve, world, StringEncoding::UTF8, false)
            .expect("it takes a contract");
        let mut encoder = ComponentEncoder::default();
        let encoded = encoder.module(&module).and_then(|it| it.encode());
        encoded.expect("it becomes a component")
    }

    /// One without code, of the present world.
    pub(crate) fn component() -> Vec<u8> {
        component_of(&changed("0.1.0", same))
    }

    #[test]
    fn document_of_a_component_is_read_again_and_that_of_another_world_is_none() {
        let contract = changed("0.1.0", same);
        let text = document(&contract, &component()).expect("it is of the world");
        let again = Contract::of_text(&text).expect("the document parses");
        assert_eq!(again.functions(), contract.functions());
        assert_eq!(
            again.plain().expect("it is printed"),
            contract.plain().expect("it is printed")
        );
        let less = component_of(&changed("0.1.0", replaced(HEAD, "")));
        assert!(document(&contract, &less).is_err(), "an export is missing");
        let added = format!("{CANCEL}\n  pause: func() -> result<_, busy>;");
        let more = component_of(&changed("0.1.0", replaced(CANCEL, &added)));
        assert!(
            document(&contract, &more).is_err(),
            "an import is not of the world"
        );
    }

    fn text() -> String {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
        let contract = Contract::of_folder(&folder).expect("the WIT parses");
        let text = contract.package_text().expect("it is printed");
        // An item that a test takes out would leave it behind.
        let lines = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("@since"));
        lines.map(|line| format!("{line}\n")).collect()
    }

    /// The present WIT as it would be in another version, changed.
    fn changed(version: &str, change: impl Fn(&str) -> String) -> Contract {
        let text = text();
        let present = of_line(&text, "package ").expect("it names its package");
        let (name, _) = present.split_once('@').expect("it has a version");
        let renamed = text.replacen(present, &format!("{name}@{version};"), 1);
        let changed = change(&renamed);
        Contract::of_text(&changed).unwrap_or_else(|error| panic!("{error:?}"))
    }

    fn of_line<'a>(text: &'a str, begins: &str) -> Option<&'a str> {
        text.lines().find(|line| line.starts_with(begins))
    }

    fn same(text: &str) -> String {
        text.to_owned()
    }

    /// Once in the text, or the test would not show what it says.
    fn replaced<'a>(from: &'a str, to: &'a str) -> impl Fn(&str) -> String + 'a {
        move |text| {
            assert_eq!(text.matches(from).count(), 1, "{from}");
            text.replace(from, to)
        }
    }

    fn refused(version: &str, change: impl Fn(&str) -> String) -> String {
        let released = changed("0.1.0", same);
        let present = changed(version, change);
        let error = keeps(&released, &present).expect_err("it breaks hosts of the release");
        format!("{error:#}")
    }

    fn taken(version: &str, change: impl Fn(&str) -> String) {
        let released = changed("0.1.0", same);
        let kept = keeps(&released, &changed(version, change));
        kept.unwrap_or_else(|error| panic!("{error:#}"));
    }

    const HEAD: &str = "head: func() -> result<ledger-head, call-error>;";
    const CANCEL: &str = "cancel: func(keys: list<string>) -> result<_, busy>;";
    const ROLES: &str = "    operator,\n";

    #[test]
    fn same_contract_of_a_later_version_is_taken() {
        taken("0.1.1", same);
        taken("0.1.0", same);
    }

    #[test]
    fn documentation_alone_may_change() {
        taken(
            "0.1.0",
            replaced("/// Tells the time.", "/// Says what time it is."),
        );
    }

    #[test]
    fn new_export_is_taken_under_a_new_version_only() {
        let added = format!("{HEAD}\n  tail: func() -> u64;");
        taken("0.1.1", replaced(HEAD, &added));
        let says = refused("0.1.0", replaced(HEAD, &added));
        assert!(says.contains("+   tail: func() -> u64;"), "{says}");
    }

    #[test]
    fn removed_export_is_refused() {
        let says = refused("0.1.1", replaced(HEAD, ""));
        assert_eq!(
            says,
            "a function of the release is gone: export coordination.head"
        );
    }

    #[test]
    fn removed_exported_interface_is_refused() {
        let says = refused("0.1.1", |text| {
            let (before, world) = text.split_once("world coordinator").expect("a world");
            let world = replaced("  export arbitration;\n", "")(world);
            format!("{before}world coordinator{world}")
        });
        assert!(says.contains("export arbitration."), "{says}");
    }

    #[test]
    fn removed_import_is_refused() {
        let says = refused("0.1.1", replaced(CANCEL, ""));
        assert!(says.contains("import lanes.cancel"), "{says}");
    }

    #[test]
    fn new_imported_function_is_refused() {
        let added = format!("{CANCEL}\n  pause: func() -> result<_, busy>;");
        let says = refused("0.1.1", replaced(CANCEL, &added));
        assert!(says.contains("import lanes.pause"), "{says}");
    }

    #[test]
    fn new_imported_interface_is_refused() {
        let says = refused("0.1.1", |text| {
            let (before, world) = text.split_once("world coordinator").expect("a world");
            let world =
                world.replacen("  import hooks;\n", "  import hooks;\n  import clock;\n", 1);
            let clock = "interface clock {\n  now: func() -> u64;\n}\n";
            format!("{before}{clock}world coordinator{world}")
        });
        assert!(says.contains("import clock.now"), "{says}");
    }

    #[test]
    fn changed_record_is_refused() {
        let field = "    run-id: option<string>,\n";
        let more = format!("{field}    tenant: option<string>,\n");
        let says = refused("0.1.1", replaced(field, &more));
        assert!(says.contains("+ tenant: option<string>,"), "{says}");
        let says = refused("0.1.1", replaced(field, ""));
        assert!(says.contains("- run-id: option<string>,"), "{says}");
        let says = refused("0.1.1", replaced(field, "    run-id: string,\n"));
        assert!(says.contains("+ run-id: string,"), "{says}");
    }

    #[test]
    fn changed_enum_or_variant_is_refused() {
        let says = refused("0.1.1", replaced(ROLES, "    operator,\n    auditor,\n"));
        assert!(says.contains("+ auditor,"), "{says}");
        let case = "    progress(u64),\n";
        let says = refused("0.1.1", replaced(case, "    progress(u32),\n"));
        assert!(says.contains("+ progress(u32),"), "{says}");
    }

    #[test]
    fn changed_function_is_refused() {
        let says = refused("0.1.1", replaced(HEAD, "head: func() -> ledger-head;"));
        assert!(says.contains("+ head: func() -> ledger-head;"), "{says}");
        let wider = "cancel: func(keys: list<string>, why: string) -> result<_, busy>;";
        let says = refused("0.1.1", replaced(CANCEL, wider));
        assert!(says.contains("+ cancel: func("), "{says}");
    }

    #[test]
    fn next_line_may_break_everything_and_going_back_is_refused() {
        taken("0.2.0", replaced(HEAD, ""));
        taken("1.0.0", replaced(CANCEL, ""));
        let says = refused("0.0.9", same);
        assert!(says.contains("went back"), "{says}");
    }
}
