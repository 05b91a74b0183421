//! What the documents show: fenced blocks, by their language.

use std::fs;
use std::path::{Path, PathBuf};

/// A fenced block of a document.
pub(crate) struct Block {
    /// The document and the line of the fence, for messages.
    pub(crate) place: String,
    /// What stands behind the three backticks.
    pub(crate) info: String,
    pub(crate) text: String,
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every block of that language, in all documents for people, in order.
pub(crate) fn blocks(language: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    for path in documents() {
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        let text = fs::read_to_string(&path).unwrap();
        let mut open: Option<Block> = None;
        for (index, line) in text.lines().enumerate() {
            match (line.strip_prefix("```"), &mut open) {
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(info), None) => {
                    let place = format!("{name}:{}", index + 1);
                    open = Some(Block { place, info: info.to_owned(), text: String::new() });
                }
                (None, Some(block)) => {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{name}: a block is not closed");
    }
    blocks.retain(|block| block.info.split(' ').next() == Some(language));
    assert!(!blocks.is_empty(), "no document has a block of {language}");
    blocks
}

fn documents() -> Vec<PathBuf> {
    let mut documents = vec![root().join("perf/README.md")];
    for directory in [root().to_owned(), root().join("docs")] {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        documents.extend(entries.filter(|path| path.extension().is_some_and(|suffix| suffix == "md")));
    }
    documents.sort();
    documents
}
