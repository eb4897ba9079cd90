use super::*;

/// Returns every node's and key's text in the order of reading, with its position.
fn positions(text: &str) -> Vec<(String, usize, usize)> {
    fn walk(text: &str, node: &Node, found: &mut Vec<(String, usize, usize)>) {
        let mut add = |what: String, id| {
            let at = locate(text, id).expect("every node has a position");
            found.push((what, at.line, at.column));
        };
        add(node.quoted(), node.id);
        match &node.value {
            Value::List(nodes) => nodes.iter().for_each(|node| walk(text, node, found)),
            Value::Map(entries) => {
                for entry in entries {
                    let at = locate(text, entry.key_id).expect("every key has a position");
                    found.push((entry.key.clone(), at.line, at.column));
                    walk(text, &entry.node, found);
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(text, &build(text).expect("valid YAML"), &mut found);
    found
}

fn at(what: &str, line: usize, column: usize) -> (String, usize, usize) {
    (what.to_owned(), line, column)
}

#[test]
fn positions_in_block_style() {
    let text = "# first\nrole: edge\nlist:\n  - name: a\n    size: 4\n  - \"b\"\n";
    let expected = [
        at("a mapping", 2, 1),
        at("role", 2, 1),
        at("`edge`", 2, 7),
        at("list", 3, 1),
        at("a list", 4, 3),
        at("a mapping", 4, 5),
        at("name", 4, 5),
        at("`a`", 4, 11),
        at("size", 5, 5),
        at("`4`", 5, 11),
        at("`b`", 6, 5),
    ];
    assert_eq!(positions(text), expected);
}

#[test]
fn positions_in_flow_style() {
    let text = "a: { b: [1, ü, 'x'], c: {} }";
    let expected = [
        at("a mapping", 1, 1),
        at("a", 1, 1),
        at("a mapping", 1, 4),
        at("b", 1, 6),
        at("a list", 1, 9),
        at("`1`", 1, 10),
        at("`ü`", 1, 13),
        at("`x`", 1, 16),
        at("c", 1, 22),
        at("a mapping", 1, 25),
    ];
    assert_eq!(positions(text), expected);
}

#[test]
fn an_alias_stands_where_its_anchor_is() {
    let text = "a: &x { n: 1 }\nb: *x\n";
    let found = positions(text);
    assert_eq!(found.iter().filter(|found| **found == at("`1`", 1, 12)).count(), 2);
}

#[test]
fn aliases_cannot_multiply_without_end() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for n in 1..10 {
        let previous = format!("*a{}", n - 1);
        text.push_str(&format!("a{n}: &a{n} [{}]\n", vec![previous; 10].join(", ")));
    }
    assert_eq!(build(&text).expect_err("too large").message, TOO_LARGE);
}

#[test]
fn brackets_cannot_nest_without_end() {
    let message = |open: &str, count: usize| {
        let error = build(&format!("a: {}", open.repeat(count))).expect_err("too deep");
        (error.location.map(|at| (at.line, at.column)), error.message)
    };
    assert_eq!(message("[", 200).1, TOO_DEEP);
    // As many as a file may have characters would take hours.
    for open in ["[", "{"] {
        assert_eq!(message(open, 1 << 20), (Some((1, MAX_NODES + 4)), TOO_LARGE.to_owned()));
    }
    assert!(TOO_LARGE.contains(&format!(" {MAX_NODES} ")));
}

#[test]
fn what_is_no_tree() {
    let message = |text: &str| {
        let error = build(text).expect_err(text);
        let at = error.location.expect(text);
        format!("{}:{}: {}", at.line, at.column, error.message)
    };
    assert_eq!(message("a: !x 1"), format!("1:4: {NO_TAGS}"));
    assert_eq!(message("a: !x [1]"), format!("1:4: {NO_TAGS}"));
    assert_eq!(message("? [1]\n: 2"), "1:3: a key must be a plain word");
    assert_eq!(message("? {a: 1}\n: 2"), "1:3: a key must be a plain word");
    assert_eq!(message("a: *x"), "1:4: unknown anchor");
    assert!(message("a: 1\n---\nb: 2").starts_with("3:1: a second YAML document"));
    assert_eq!(
        message("a: [1, 2"),
        "1:9: did not find expected ',' or ']', while parsing a flow sequence at line 1 column 4"
    );
}
