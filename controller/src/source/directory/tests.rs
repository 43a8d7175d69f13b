use std::fs;

use super::*;

const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";

struct Bed {
    dir: tempfile::TempDir,
    directory: Directory,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let directory = Directory::new(dir.path().to_owned());
        Self { dir, directory }
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.dir.path().join(name), text).expect("written");
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.dir.path().join(name)).expect("removed");
    }

    /// Scans as if every file had been left alone, and shows objects and refusals.
    fn scan(&mut self) -> (Vec<String>, Vec<(String, Refusal)>) {
        self.directory.scan(SystemTime::now(), Duration::ZERO);
        let state = self.directory.state();
        let objects = state
            .files
            .iter()
            .map(|file| format!("{}:{}", file.file, file.objects));
        let refused = state
            .files
            .iter()
            .filter_map(|file| Some((file.file.clone(), file.refused.clone()?)))
            .collect();
        (objects.collect(), refused)
    }
}

fn pod(name: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: shop\n")
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn a_bad_file_keeps_what_it_held_and_says_where() {
    let deep = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {}{}",
        "[".repeat(100),
        "]".repeat(100)
    );
    let mut bomb = String::from(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: x\nspec:\n  a: &a [x,x,x,x,x,x,x,x]\n",
    );
    for (one, other) in ["b", "c", "d", "e", "f", "g", "h"]
        .iter()
        .zip(["a", "b", "c", "d", "e", "f", "g"])
    {
        bomb += &format!(
            "  {one}: &{one} [{}]\n",
            vec![format!("*{other}"); 20].join(",")
        );
    }
    let labels = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: x\n  labels:\n    app: ".to_owned();
    let rows: Vec<(&str, String, u64, &str)> = vec![
        ("not YAML", format!("{NAMESPACE}---\na: [\n"), 0, ""),
        (
            "a type",
            format!("{NAMESPACE}---\n{}spec:\n  containers: 7\n", pod("a")),
            11,
            "spec.containers",
        ),
        (
            "a type in a list",
            format!(
                "{}spec:\n  containers:\n  - name: a\n  - name: b\n    ports: 7\n",
                pod("a")
            ),
            10,
            "spec.containers[1].ports",
        ),
        (
            "a number that is to be text, as an API server refuses it",
            format!("{}  labels:\n    version: 1.20\n", pod("a")),
            7,
            "metadata.labels.version",
        ),
        (
            "an enum",
            format!("{}spec:\n  hostNetwork: perhaps\n", pod("a")),
            7,
            "spec.hostNetwork",
        ),
        ("no kind", "apiVersion: v1\n".into(), 1, "kind"),
        ("no version", "kind: Pod\n".into(), 1, "apiVersion"),
        (
            "no name",
            "apiVersion: v1\nkind: Pod\nmetadata: {}\n".into(),
            1,
            "metadata.name",
        ),
        (
            "a name",
            format!("{NAMESPACE}---\n{}", pod("A_b")),
            8,
            "metadata.name",
        ),
        (
            "an annotation",
            format!(
                "{}  annotations:\n    ringmail.io/inject: yes please\n",
                pod("a")
            ),
            7,
            "ringmail.io/inject",
        ),
        (
            "a policy that is not understood",
            format!("{NAMESPACE}---\napiVersion: ringmail.io/v1alpha1\nkind: Permission\n"),
            6,
            "kind",
        ),
        (
            "twice",
            format!("{}---\n{}", pod("a"), pod("a")),
            6,
            "metadata.name",
        ),
        (
            "a long label",
            labels + &"x".repeat(64),
            5,
            "metadata.labels",
        ),
        ("depth", deep, 0, ""),
        ("aliases", bomb, 0, ""),
        ("size", format!("#{}", "x".repeat(1024 * 1024)), 0, ""),
    ];
    for (what, text, line, field) in rows {
        let mut bed = Bed::new();
        bed.write("a.yaml", format!("{NAMESPACE}---\n{}", pod("before")));
        assert_eq!(bed.scan(), (vec!["a.yaml:2".into()], vec![]));
        bed.write("a.yaml", &text);
        let (objects, refused) = bed.scan();
        assert_eq!(objects, ["a.yaml:2"], "{what}: what it held stays");
        let (_, refusal) = refused.first().expect(what);
        assert!(refusal.problem.len() <= 512, "{what}");
        if line > 0 {
            assert_eq!(
                (refusal.line, refusal.field.as_str()),
                (line, field),
                "{what}: {refusal:?}"
            );
        }
        bed.write("a.yaml", NAMESPACE);
        assert_eq!(
            bed.scan(),
            (vec!["a.yaml:1".into()], vec![]),
            "{what}: mended"
        );
    }
}

/// A controller that starts does not know what a file held before.
#[test]
fn of_a_file_that_was_never_taken_what_closes_something_is_in_force() {
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n  annotations:\n    ringmail.io/default-policy: denny\n    ringmail.io/inject: enabled\n";
    let policy = |name: &str| {
        format!(
            "apiVersion: ringmail.io/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{targetRefs: [{{kind: Namespace}}], action: deny}}\n"
        )
    };
    let bad = |policies: &str| format!("{namespace}---\n{}---\n{policies}---\na: [\n", pod("a"));
    let mut bed = Bed::new();
    bed.write("a.yaml", bad(&policy("one")));
    let (objects, refused) = bed.scan();
    assert_eq!(objects, ["a.yaml:2"]);
    assert_eq!(refused[0].1.field, "ringmail.io/default-policy");
    let state = bed.directory.state();
    let found = state.objects.namespaces().next().expect("the namespace");
    let annotations = found.metadata.annotations.clone().expect("some");
    assert_eq!(annotations["ringmail.io/default-policy"], "deny");
    assert_eq!(annotations["ringmail.io/inject"], "enabled");
    bed.write("a.yaml", bad(&[policy("one"), policy("two")].join("---\n")));
    assert_eq!(bed.scan().0, ["a.yaml:3"], "still never taken");
    bed.write("a.yaml", pod("a"));
    assert_eq!(bed.scan(), (vec!["a.yaml:1".into()], vec![]), "mended");
    bed.write("a.yaml", bad(&policy("one")));
    assert_eq!(bed.scan().0, ["a.yaml:1"], "what was taken stays");
}

#[test]
fn not_utf8_is_refused_with_its_line() {
    let mut bed = Bed::new();
    bed.write("a.yaml", b"apiVersion: v1\nkind: \xff\n");
    assert_eq!(bed.scan().1[0].1.line, 2);
}

#[test]
fn files_come_and_go() {
    let mut bed = Bed::new();
    bed.write("a.yaml", pod("a"));
    bed.write("b.yml", pod("b"));
    bed.write(".hidden.yaml", pod("c"));
    bed.write("notes.txt", "nothing");
    assert_eq!(bed.scan().0, ["a.yaml:1", "b.yml:1"]);
    bed.remove("a.yaml");
    assert_eq!(bed.scan().0, ["b.yml:1"]);
    bed.write("b.yml", "# only a comment\n");
    assert_eq!(bed.scan().0, ["b.yml:0"]);
}

#[test]
fn a_duplicate_names_both_files_and_moving_an_object_is_no_duplicate() {
    let mut bed = Bed::new();
    bed.write("a.yaml", pod("x"));
    bed.write("b.yaml", pod("y"));
    bed.scan();
    bed.write("b.yaml", format!("{}---\n{}", pod("y"), pod("x")));
    let (objects, refused) = bed.scan();
    assert_eq!(objects, ["a.yaml:1", "b.yaml:1"]);
    assert_eq!(refused[0].0, "b.yaml");
    assert_eq!(refused[0].1.problem, "Pod shop/x is in a.yaml too");
    // The other file gives way: the refused one is taken without being touched.
    bed.write("a.yaml", NAMESPACE);
    assert_eq!(
        bed.scan(),
        (vec!["a.yaml:1".into(), "b.yaml:2".into()], vec![])
    );
    // Both change in one look.
    bed.write("a.yaml", pod("y"));
    bed.write("b.yaml", pod("x"));
    assert_eq!(
        bed.scan(),
        (vec!["a.yaml:1".into(), "b.yaml:1".into()], vec![])
    );
}

#[test]
fn an_object_does_not_vanish_when_its_old_file_breaks_while_it_moves() {
    let mut bed = Bed::new();
    bed.write("a.yaml", pod("x"));
    bed.scan();
    bed.write("a.yaml", "kind: [");
    bed.write("b.yaml", pod("x"));
    let (objects, refused) = bed.scan();
    assert_eq!(
        objects,
        ["a.yaml:1", "b.yaml:0"],
        "the old one still holds it"
    );
    assert_eq!(refused.len(), 2);
}

#[test]
fn an_unreadable_directory_keeps_everything() {
    let mut bed = Bed::new();
    bed.write("a.yaml", pod("x"));
    bed.scan();
    let path = bed.dir.path().to_owned();
    let away = path.with_extension("away");
    fs::rename(&path, &away).expect("moved");
    assert!(
        bed.directory
            .scan(SystemTime::now(), Duration::ZERO)
            .changed
    );
    let state = bed.directory.state();
    assert_eq!(state.objects.len(), 1);
    assert!(state.unreadable.is_some());
    fs::rename(&away, &path).expect("moved back");
    assert!(
        bed.directory
            .scan(SystemTime::now(), Duration::ZERO)
            .changed
    );
    assert!(bed.directory.state().unreadable.is_none());
}

#[test]
fn a_file_being_written_is_left_alone_until_it_rests() {
    let mut bed = Bed::new();
    bed.write("a.yaml", pod("x"));
    bed.scan();
    bed.write("a.yaml", "");
    let rest = Duration::from_secs(3600);
    let outcome = bed.directory.scan(SystemTime::now(), rest);
    assert!(outcome.unsettled && !outcome.changed);
    assert_eq!(bed.directory.state().objects.len(), 1);
    let later = SystemTime::now() + 2 * rest;
    assert!(bed.directory.scan(later, rest).changed);
    assert_eq!(bed.directory.state().objects.len(), 0);
}

#[test]
fn links_swapped_as_kubernetes_does_are_seen() {
    let mut bed = Bed::new();
    let link = |target: &str, name: &str| {
        let (old, new) = (bed.dir.path().join("..new"), bed.dir.path().join(name));
        std::os::unix::fs::symlink(target, &old).expect("linked");
        fs::rename(old, new).expect("swapped");
    };
    for (version, name) in [("..1", "x"), ("..2", "y")] {
        fs::create_dir(bed.dir.path().join(version)).expect("made");
        bed.write(&format!("{version}/a.yaml"), pod(name));
    }
    link("..1", "..data");
    link("..data/a.yaml", "a.yaml");
    let names = |state: &State| {
        state
            .objects
            .pods()
            .next()
            .and_then(|pod| pod.metadata.name.clone())
    };
    bed.directory.scan(SystemTime::now(), Duration::ZERO);
    assert_eq!(names(&bed.directory.state()).as_deref(), Some("x"));
    link("..2", "..data");
    bed.directory.scan(SystemTime::now(), Duration::ZERO);
    assert_eq!(names(&bed.directory.state()).as_deref(), Some("y"));
    let unchanged = bed.scan().0;
    assert_eq!(unchanged, ["a.yaml:1"]);
}

#[test]
fn other_kinds_and_unknown_keys_are_warnings() {
    let mut bed = Bed::new();
    bed.write(
        "a.yaml",
        format!(
            "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: x}}\n--- # next\n{}  annotations:\n    ringmail.io/injekt: enabled\n",
            pod("a")
        ),
    );
    bed.scan();
    let state = bed.directory.state();
    assert_eq!(state.files[0].refused, None);
    assert_eq!(
        state.files[0].warnings,
        [
            "line 1: apps/v1 Deployment is not read",
            "line 12: Pod shop/a: annotation ringmail.io/injekt is unknown"
        ]
    );
}

#[test]
fn no_beginning_of_a_file_and_no_bent_byte_panics() {
    let text = format!(
        "{NAMESPACE}---\n{}spec:\n  containers: [{{name: 'é'}}]\n",
        pod("a")
    );
    for end in 0..text.len() {
        let mut bent = text.as_bytes().to_vec();
        bent[end] ^= 0x1f;
        // Refused or not, it must come back.
        let _ = parse::parse(&text.as_bytes()[..end]);
        let _ = parse::parse(&bent);
    }
}
