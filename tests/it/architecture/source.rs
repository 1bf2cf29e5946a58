//! Which file of the crate uses which, read from the source and not from the compiler.
//!
//! A path counts if it begins with `crate`, `super` or `self`, with a child module, or with a
//! name that the file imports. It leads to the file that defines the item, through all
//! re-exports in between. Test modules do not count; the arguments of macros do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// The segments of a path, from the root of the crate.
type Segments = Vec<String>;

/// The modules of one crate.
#[derive(Debug, Default)]
pub struct Source {
    modules: BTreeMap<Segments, Module>,
}

#[derive(Debug, Default)]
struct Module {
    /// The file that holds the module, relative to the crate's folder.
    file: PathBuf,
    children: BTreeSet<String>,
    /// Items that the module re-exports by name, and their paths.
    exports: Vec<(String, Segments)>,
    /// Modules that it re-exports with `*`.
    glob_exports: Vec<Segments>,
    /// Names that `use` brings in, and their paths.
    imports: BTreeMap<String, Segments>,
    /// Full paths that the module uses.
    paths: BTreeSet<Segments>,
}

impl Source {
    /// Reads a crate, beginning with its root file.
    pub fn read(root: &Path) -> Self {
        let mut source = Self::default();
        let folder = root.parent().unwrap();
        source.read_file(root, folder, folder, Vec::new());
        source
    }

    /// Pairs of files: the first one uses the second one.
    pub fn edges(&self) -> BTreeSet<(PathBuf, PathBuf)> {
        let mut edges = BTreeSet::new();
        for (name, module) in &self.modules {
            let passed_on = module.exports.iter().map(|(_, path)| path);
            // Re-exporting an item of a child module is not a use of it.
            let elsewhere = passed_on
                .chain(&module.glob_exports)
                .filter(|path| !path.starts_with(name));
            for path in module.paths.iter().chain(elsewhere) {
                if let Some(file) = self.definition(path, 0)
                    && file != module.file
                {
                    edges.insert((module.file.clone(), file));
                }
            }
        }
        edges
    }

    /// The file that defines the item at `path`; `None` for a module itself.
    fn definition(&self, path: &[String], depth: usize) -> Option<PathBuf> {
        assert!(depth < 20, "{path:?} is passed on in a circle");
        let known = (0..=path.len())
            .rev()
            .find(|&len| self.modules.contains_key(&path[..len]))?;
        let module = &self.modules[&path[..known]];
        let (item, rest) = path[known..].split_first()?;
        let passed_on = |target: &Segments| {
            let target = [target, rest].concat();
            self.definition(&target, depth + 1)
        };
        if let Some((_, target)) = module.exports.iter().find(|(name, _)| name == item) {
            return passed_on(target);
        }
        let defined_by_glob = module.glob_exports.iter().find_map(|target| {
            let target = [target.as_slice(), &path[known..]].concat();
            let file = self.definition(&target, depth + 1)?;
            (file != module.file).then_some(file)
        });
        defined_by_glob.or_else(|| Some(module.file.clone()))
    }

    fn read_file(&mut self, file: &Path, root: &Path, children_in: &Path, name: Segments) {
        let text = std::fs::read_to_string(file).unwrap();
        let tokens: TokenStream = text
            .parse()
            .unwrap_or_else(|error| panic!("{} cannot be read as Rust: {error}", file.display()));
        let below = file.strip_prefix(root).unwrap().to_owned();
        self.read_module(tokens, below, root, children_in, name);
    }

    fn read_module(
        &mut self,
        tokens: TokenStream,
        file: PathBuf,
        root: &Path,
        children_in: &Path,
        name: Segments,
    ) {
        let mut module = Module {
            file: file.clone(),
            ..Module::default()
        };
        let mut inside = Vec::new();
        let mut reader = Reader {
            module: &mut module,
            name: &name,
            inside: &mut inside,
            mentions: Vec::new(),
        };
        reader.items(tokens);
        let mentions = reader.mentions;
        module.paths = mentions
            .into_iter()
            .filter_map(|path| module.in_full(&name, path))
            .collect();
        self.modules.insert(name.clone(), module);
        for (child, body) in inside {
            let child_name = [name.clone(), vec![child.clone()]].concat();
            if let Some(body) = body {
                let children_in = children_in.join(&child);
                self.read_module(body, file.clone(), root, &children_in, child_name);
                continue;
            }
            let own_folder = children_in.join(&child);
            let beside = children_in.join(format!("{child}.rs"));
            let child_file = match beside.exists() {
                true => beside,
                false => own_folder.join("mod.rs"),
            };
            self.read_file(&child_file, root, &own_folder, child_name);
        }
    }
}

impl Module {
    /// The path from the crate's root; `None` if it leads out of the crate.
    fn in_full(&self, name: &[String], path: Segments) -> Option<Segments> {
        let (first, rest) = path.split_first()?;
        let base = match first.as_str() {
            "crate" => Vec::new(),
            "self" => name.to_vec(),
            "super" => {
                let ups = path.iter().take_while(|part| *part == "super").count();
                let parent = name[..name.len().checked_sub(ups)?].to_vec();
                return Some([parent, path[ups..].to_vec()].concat());
            }
            child if self.children.contains(child) => {
                return Some([name.to_vec(), path].concat());
            }
            import => self.imports.get(import)?.clone(),
        };
        Some([base, rest.to_vec()].concat())
    }
}

/// Reads the tokens of one module.
struct Reader<'m> {
    module: &'m mut Module,
    name: &'m [String],
    /// Child modules, with their tokens if they are inline.
    inside: &'m mut Vec<(String, Option<TokenStream>)>,
    mentions: Vec<Segments>,
}

impl Reader<'_> {
    fn items(&mut self, tokens: TokenStream) {
        let mut tokens = tokens.into_iter().peekable();
        let mut is_public = false;
        while let Some(token) = tokens.next() {
            match &token {
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    let is_test = tokens
                        .next_if(|next| matches!(next, TokenTree::Group(_)))
                        .is_some_and(|next| next.to_string().replace(' ', "") == "[cfg(test)]");
                    if is_test {
                        skip_item(&mut tokens);
                    }
                }
                TokenTree::Ident(ident) if ident == "pub" => {
                    is_public = true;
                    tokens.next_if(|next| {
                        matches!(next, TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis)
                    });
                    continue;
                }
                TokenTree::Ident(ident) if ident == "use" => {
                    let tree: TokenStream = tokens
                        .by_ref()
                        .take_while(|next| !is_punct(next, ';'))
                        .collect();
                    self.use_tree(tree, &[], is_public);
                }
                TokenTree::Ident(ident) if ident == "mod" => {
                    let Some(TokenTree::Ident(child)) = tokens.next() else {
                        continue;
                    };
                    let body = match tokens.next() {
                        Some(TokenTree::Group(group)) => Some(group.stream()),
                        _ => None,
                    };
                    self.module.children.insert(child.to_string());
                    self.inside.push((child.to_string(), body));
                }
                TokenTree::Ident(ident) => {
                    let mut path = vec![ident.to_string()];
                    while let Some(next) = path_goes_on(&mut tokens) {
                        path.push(next);
                    }
                    if path.len() > 1 {
                        self.mentions.push(path);
                    }
                }
                TokenTree::Group(group) => self.items(group.stream()),
                // A name behind a dot is a field or a method, not the start of a path.
                TokenTree::Punct(punct) if punct.as_char() == '.' => {
                    tokens.next_if(|next| matches!(next, TokenTree::Ident(_)));
                }
                _ => {}
            }
            is_public = false;
        }
    }

    /// One `use`, or one part of a group in braces.
    fn use_tree(&mut self, tree: TokenStream, before: &[String], is_public: bool) {
        let mut path = before.to_vec();
        let mut named = None;
        let mut tokens = tree.into_iter().peekable();
        loop {
            let token = tokens.next();
            match &token {
                Some(TokenTree::Ident(ident)) if ident == "as" => {
                    named = tokens.next().map(|name| name.to_string());
                }
                Some(TokenTree::Ident(ident)) => path.push(ident.to_string()),
                Some(TokenTree::Punct(punct)) if punct.as_char() == '*' => {
                    path.push("*".to_owned());
                }
                Some(TokenTree::Group(group)) => {
                    self.use_group(group, &path, is_public);
                    path.clear();
                }
                Some(TokenTree::Punct(punct)) if punct.as_char() == ',' => {
                    self.used(
                        std::mem::replace(&mut path, before.to_vec()),
                        named.take(),
                        is_public,
                    );
                }
                Some(_) => {}
                None => break,
            }
        }
        if path.len() > before.len() {
            self.used(path, named, is_public);
        }
    }

    fn use_group(&mut self, group: &Group, before: &[String], is_public: bool) {
        let mut part = Vec::new();
        for token in group.stream() {
            if is_punct(&token, ',') {
                self.use_tree(
                    std::mem::take(&mut part).into_iter().collect(),
                    before,
                    is_public,
                );
            } else {
                part.push(token);
            }
        }
        self.use_tree(part.into_iter().collect(), before, is_public);
    }

    fn used(&mut self, mut path: Segments, named: Option<String>, is_public: bool) {
        if path.last().is_some_and(|last| last == "self") && path.len() > 1 {
            path.pop();
        }
        let Some(last) = path.last().cloned() else {
            return;
        };
        self.mentions.retain(|mention| *mention != path);
        if !is_public {
            self.mentions.push(path.clone());
        }
        let Some(full) = self.module.in_full(self.name, path) else {
            return;
        };
        if last == "*" {
            if is_public {
                let of = full[..full.len() - 1].to_vec();
                self.module.glob_exports.push(of);
            }
            return;
        }
        let name = named.unwrap_or(last);
        if is_public {
            self.module.exports.push((name.clone(), full.clone()));
        }
        self.module.imports.insert(name, full);
    }
}

type Tokens = std::iter::Peekable<proc_macro2::token_stream::IntoIter>;

fn is_punct(token: &TokenTree, wanted: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == wanted)
}

/// The next segment of a path, if `::` and a name follow.
fn path_goes_on(tokens: &mut Tokens) -> Option<String> {
    tokens.next_if(|next| is_punct(next, ':'))?;
    tokens.next_if(|next| is_punct(next, ':'))?;
    match tokens.next_if(|next| matches!(next, TokenTree::Ident(_)))? {
        TokenTree::Ident(ident) => Some(ident.to_string()),
        _ => None,
    }
}

/// Skips an item: it ends with a semicolon or with a block in braces.
fn skip_item(tokens: &mut Tokens) {
    for token in tokens {
        match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => return,
            token if is_punct(&token, ';') => return,
            _ => {}
        }
    }
}
