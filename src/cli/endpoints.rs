//! `ringprobe endpoints`: the store's endpoints in and out, and generated ones for load tests.
//!
//! Nothing is left half-done: a file is validated whole, patterns too, before the store is opened, and one that is
//! written takes its name only when it is complete. Endpoints are written one by one, so a million of them take no
//! more memory than the store needs to hand them out.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::Error;
use super::store::StoreArguments;
use super::terminal;
use crate::config::{ENDPOINT_FILE_BYTES_MAX, GENERATE_COUNT_MAX, REQUEST_BYTES_MAX};
use crate::control::plans::check_patterns;
use crate::endpoint::generate::Recipe;
use crate::endpoint::{Endpoint, StoredEndpoint, duration, file, record};
use crate::matcher::{Budgets, Compiler};
use crate::writer::{StoreUrl, Upserted, block_on};

/// Arguments of `endpoints`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring the store in line with a file: endpoints are found by name, others are left alone.
    Import(Import),
    /// Write the store's endpoints as a file.
    Export(Export),
    /// Show the store's endpoints.
    List(List),
    /// Write endpoints by the number, for load tests.
    Generate(Generate),
}

#[derive(Debug, Args)]
struct Import {
    /// Endpoint file; - for standard input.
    #[arg(value_name = "FILE.toml")]
    file: PathBuf,
    #[command(flatten)]
    store: StoreArguments,
    /// Print what was done as one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Export {
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    store: StoreArguments,
}

#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    store: StoreArguments,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Generate {
    /// How many.
    #[arg(
        long,
        short = 'n',
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(GENERATE_COUNT_MAX))
    )]
    count: u32,
    /// A known load; other flags change parts of it.
    #[arg(long, value_name = "NAME")]
    preset: Option<Preset>,
    /// Interval, or a range of whole seconds to draw each endpoint's from, such as 5s..30s [default: 60s]
    #[arg(long, value_name = "TIME[..TIME]")]
    interval: Option<String>,
    /// URL that the paths are appended to, with ranges such as http://127.0.0.[1-4]:[8080-8087]; repeatable,
    /// endpoints take turns [default: http://127.0.0.1:8080]
    #[arg(long = "base", value_name = "URL")]
    bases: Vec<String>,
    /// A path and its weight, such as /delay/10ms:4; repeatable [default: /]
    #[arg(long = "path", value_name = "PATH[:WEIGHT]")]
    paths: Vec<String>,
    /// fresh or reuse [default: fresh]
    #[arg(long, value_name = "MODE")]
    connection: Option<String>,
    /// Timeout of each probe [default: 10s, or the interval if that is shorter]
    #[arg(long, value_name = "TIME")]
    timeout: Option<String>,
    /// Names are PREFIX-000001 and so on.
    #[arg(long, default_value = "gen")]
    prefix: String,
    /// Another seed draws other intervals and paths.
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Preset {
    /// 5 to 30 s; 80 % answer after 10 ms, 20 % after 1 s; a tenth each answer 500 and 404.
    Ancestor,
}

/// Where a file of endpoints goes.
#[derive(Debug, Args)]
struct Output {
    /// Write to this file; - for standard output.
    #[arg(long = "output", short = 'o', value_name = "FILE.toml", default_value = "-")]
    path: PathBuf,
    /// Print how many were written, and where, as one JSON object; needs -o FILE.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Error> {
    match &arguments.command {
        Command::Import(arguments) => import(arguments),
        Command::Export(arguments) => export(arguments),
        Command::List(arguments) => list(arguments),
        Command::Generate(arguments) => generate(arguments),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Reads and validates an endpoint file, whose endpoints must pass `check`; one without endpoints is a mistake.
pub(super) fn read(path: &Path, check: &mut file::Check<'_>) -> Result<Vec<Endpoint>, Error> {
    let name = if is_standard(path) { "standard input".to_owned() } else { path.display().to_string() };
    let refused = |reason: &dyn std::fmt::Display| Error::input(format!("{name}: {reason}"));
    let source: Box<dyn Read> = match is_standard(path) {
        true => Box::new(io::stdin().lock()),
        false => Box::new(File::open(path).map_err(|error| refused(&error))?),
    };
    // One byte more than allowed, to tell a file that is too long from one that just fits.
    let mut bytes = Vec::new();
    source.take(ENDPOINT_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| refused(&error))?;
    if bytes.len() as u64 > ENDPOINT_FILE_BYTES_MAX {
        let mib = ENDPOINT_FILE_BYTES_MAX >> 20;
        return Err(refused(&format!("is longer than {mib} MiB; split it and import the parts")));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        Error::input(format!("{name}:{line}: is not UTF-8"))
    })?;
    let directory =
        if is_standard(path) { Path::new("") } else { path.parent().unwrap_or_else(|| Path::new("")) };
    // Many patterns of the lazy tier take seconds to compile.
    let mut checked = terminal::Counter::start(format!("{name}: endpoints checked"));
    let mut check = |endpoint: &Endpoint| {
        let found = check(endpoint);
        checked.add_one();
        found
    };
    let endpoints =
        file::parse_checked(&text, &name, &mut |path| read_body(&directory.join(path)), &mut check);
    let endpoints = endpoints.map_err(Error::input)?;
    if endpoints.is_empty() {
        return Err(refused(&"no [[endpoint]] in it"));
    }
    Ok(endpoints)
}

/// A request body that an endpoint file names, relative to where that file is.
fn read_body(path: &Path) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    // One byte more than a request may have, to tell one that is too long.
    // What is no file may never end, or never begin.
    let read = match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => return Err("is not a file".to_owned()),
        Ok(_) => {
            File::open(path).and_then(|file| file.take(REQUEST_BYTES_MAX as u64 + 1).read_to_end(&mut body))
        }
        Err(error) => Err(error),
    };
    match read {
        Ok(_) if body.len() > REQUEST_BYTES_MAX => {
            Err(format!("is longer than {} MiB", REQUEST_BYTES_MAX >> 20))
        }
        Ok(_) => Ok(body),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}

fn import(arguments: &Import) -> Result<(), Error> {
    let url = arguments.store.url()?;
    // Without secrets, which another machine may have.
    let mut compiler = Compiler::new(Budgets::default());
    let endpoints = read(&arguments.file, &mut |endpoint| check_patterns(&mut compiler, endpoint))?;
    drop(compiler);
    let upserted = block_on(async {
        let mut store = super::store::open(&url, true).await?;
        store.upsert_endpoints(endpoints).await.map_err(Error::failed)
    })
    .map_err(Error::failed)??;
    let Upserted { inserted, updated, unchanged } = upserted;
    let line = match arguments.json {
        true => json!({ "inserted": inserted, "updated": updated, "unchanged": unchanged }).to_string(),
        false => format!("{inserted} new, {updated} changed, {unchanged} as they were"),
    };
    print(|out| writeln!(out, "{line}"))
}

fn export(arguments: &Export) -> Result<(), Error> {
    arguments.output.check()?;
    let endpoints = stored(&arguments.store.url()?)?;
    arguments.output.write(endpoints.into_iter().map(|stored| stored.endpoint))
}

fn list(arguments: &List) -> Result<(), Error> {
    let endpoints = stored(&arguments.store.url()?)?;
    print(|out| if arguments.json { as_json(out, &endpoints) } else { as_table(out, &endpoints) })
}

fn generate(arguments: &Generate) -> Result<(), Error> {
    arguments.output.check()?;
    let mut recipe = match arguments.preset {
        Some(Preset::Ancestor) => Recipe::ancestor(),
        None => Recipe::default(),
    };
    recipe.count = arguments.count;
    recipe.seed = arguments.seed;
    recipe.prefix.clone_from(&arguments.prefix);
    recipe.connection.clone_from(&arguments.connection);
    recipe.timeout.clone_from(&arguments.timeout);
    if let Some(interval) = &arguments.interval {
        recipe.interval.clone_from(interval);
    }
    if !arguments.bases.is_empty() {
        recipe.bases.clone_from(&arguments.bases);
    }
    if !arguments.paths.is_empty() {
        recipe.paths.clone_from(&arguments.paths);
    }
    let endpoints = recipe.generate().map_err(|error| Error::input(format!("--{error}")))?;
    arguments.output.write(endpoints)
}

/// All endpoints of a store that must be up to date: who only reads does not migrate.
fn stored(url: &StoreUrl) -> Result<Vec<StoredEndpoint>, Error> {
    // Opening would make the file.
    if let StoreUrl::Sqlite(path) = url
        && !path.exists()
    {
        return Err(Error::input(format!("{url}: there is no such file")));
    }
    block_on(async {
        let mut store = super::store::open(url, false).await?;
        store.endpoints().await.map_err(Error::input)
    })
    .map_err(Error::failed)?
}

fn is_standard(path: &Path) -> bool {
    path.as_os_str() == "-"
}

impl Output {
    fn check(&self) -> Result<(), Error> {
        match self.json && is_standard(&self.path) {
            true => Err(Error::input("--json: standard output has the endpoints already; add -o FILE")),
            false => Ok(()),
        }
    }

    fn write(&self, endpoints: impl Iterator<Item = Endpoint>) -> Result<(), Error> {
        if is_standard(&self.path) {
            return print(|out| file::write_to(out, endpoints).map(drop));
        }
        let shown = self.path.display();
        let failed = |error: io::Error| Error::failed(format!("{shown}: {error}"));
        let count = write_whole(&self.path, |out| file::write_to(out, endpoints)).map_err(failed)?;
        let line = match self.json {
            true => json!({ "endpoints": count, "file": shown.to_string() }).to_string(),
            false => format!("{count} endpoints written to {shown}"),
        };
        print(|out| writeln!(out, "{line}"))
    }
}

/// Writes a file under another name and gives it its own when it is complete, so that neither a full disk nor
/// a signal leaves half of it, or takes away the one before.
fn write_whole<T>(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<T>) -> io::Result<T> {
    // A link stays one, and devices and pipes are written to as they are.
    let path = fs::canonicalize(path).unwrap_or_else(|_missing| path.to_owned());
    let special = fs::metadata(&path).is_ok_and(|metadata| !metadata.is_file());
    let part = if special { path.clone() } else { with_suffix(&path, ".part") };
    let result = File::create(&part).and_then(|file| {
        let mut out = BufWriter::with_capacity(OUTPUT_BUFFER_BYTES, file);
        let result = write(&mut out)?;
        let file = out.into_inner()?;
        if !special {
            file.sync_all()?;
            fs::rename(&part, &path)?;
        }
        Ok(result)
    });
    if result.is_err() && !special {
        // What cannot be removed either was probably never made.
        let _ = fs::remove_file(&part);
    }
    result
}

/// Large enough that the system calls do not show.
const OUTPUT_BUFFER_BYTES: usize = 64 * 1024;

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Writes to standard output. A reader that has seen enough, as in `… | head`, is no failure.
fn print(write: impl FnOnce(&mut BufWriter<io::StdoutLock<'static>>) -> io::Result<()>) -> Result<(), Error> {
    let mut out = BufWriter::with_capacity(OUTPUT_BUFFER_BYTES, io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|error| Error::failed(format!("standard output: {error}"))),
    }
}

/// One row per endpoint, as wide as the widest; the URL, of any width, stands last.
fn as_table(out: &mut impl Write, endpoints: &[StoredEndpoint]) -> io::Result<()> {
    const HEADS: [&str; 7] = ["ID", "NAME", "INTERVAL", "TIMEOUT", "CONNECTION", "METHOD", "URL"];
    let mut widths = HEADS.map(str::len);
    for stored in endpoints {
        for (width, cell) in widths.iter_mut().zip(cells(stored)) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut row = |cells: [String; 7]| {
        let [id, name, interval, timeout, connection, method, url] = cells;
        let [w_id, w_name, w_interval, w_timeout, w_connection, w_method, _] = widths;
        writeln!(
            out,
            "{id:>w_id$}  {name:<w_name$}  {interval:>w_interval$}  {timeout:>w_timeout$}  \
             {connection:<w_connection$}  {method:<w_method$}  {url}"
        )
    };
    row(HEADS.map(str::to_owned))?;
    endpoints.iter().try_for_each(|stored| row(cells(stored)))
}

fn cells(StoredEndpoint { id, endpoint }: &StoredEndpoint) -> [String; 7] {
    let off = if endpoint.options.enabled { "" } else { " (disabled)" };
    [
        id.0.to_string(),
        endpoint.name.clone(),
        duration::write(endpoint.interval),
        duration::write(endpoint.options.timeout),
        endpoint.options.connection.name().to_owned(),
        endpoint.options.method.to_string(),
        format!("{}{off}", endpoint.url),
    ]
}

/// `{"endpoints": [{…the columns of the endpoints table…}]}`; a body that is not text is `body_base64`.
fn as_json(out: &mut impl Write, endpoints: &[StoredEndpoint]) -> io::Result<()> {
    out.write_all(b"{\"endpoints\":[")?;
    for (index, StoredEndpoint { id, endpoint }) in endpoints.iter().enumerate() {
        if index > 0 {
            out.write_all(b",")?;
        }
        let mut row = serde_json::Map::from_iter([("endpoint_id".to_owned(), id.0.into())]);
        if let serde_json::Value::Object(columns) = record::object(endpoint) {
            row.extend(columns);
        }
        if row["body"].is_null() && !endpoint.options.body.is_empty() {
            row.insert("body_base64".to_owned(), STANDARD.encode(&endpoint.options.body).into());
        }
        serde_json::to_writer(&mut *out, &row)?;
    }
    out.write_all(b"]}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::EndpointId;

    fn stored() -> Vec<StoredEndpoint> {
        let text = "[[endpoint]]\nname = 'shop'\nurl = 'http://a'\n\
                    [[endpoint]]\nname = 'bücher'\nurl = 'http://b'\nmethod = 'POST'\nbody = 'x'\nenabled = false\n\
                    interval = '90s'\nheaders = { Z = '1', A = '2' }\naddress = '::1'\ntags = { team = 'shop' }";
        let endpoints = file::parse(text, "t.toml").unwrap();
        let ids = [9, 10].map(EndpointId);
        ids.into_iter().zip(endpoints).map(|(id, endpoint)| StoredEndpoint { id, endpoint }).collect()
    }

    #[test]
    fn tables_are_aligned() {
        let mut out = Vec::new();
        as_table(&mut out, &stored()).unwrap();
        let expected = "\
ID  NAME    INTERVAL  TIMEOUT  CONNECTION  METHOD  URL
 9  shop          1m      10s  fresh       GET     http://a/
10  bücher       90s      10s  fresh       POST    http://b/ (disabled)
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn json_has_the_columns() {
        let mut out = Vec::new();
        as_json(&mut out, &stored()).unwrap();
        let found: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let [first, second] = [0, 1].map(|index| &found["endpoints"][index]);
        let names: Vec<&str> = second.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names[0], "endpoint_id");
        assert_eq!(names[1..], record::COLUMNS.map(|(name, _)| name));
        for (column, value) in [
            ("endpoint_id", json!(10)),
            ("name", json!("bücher")),
            ("url", json!("http://b/")),
            ("headers", json!([["Z", "1"], ["A", "2"]])),
            ("body", json!("x")),
            ("interval_ms", json!(90_000)),
            ("enabled", json!(false)),
            ("address", json!("::1")),
            ("tags", json!({ "team": "shop" })),
        ] {
            assert_eq!(second[column], value, "{column}");
        }
        assert_eq!((&first["address"], &first["body"]), (&json!(null), &json!(null)));
        let mut bytes = stored();
        std::sync::Arc::make_mut(&mut bytes[0].endpoint.options).body = vec![0xff];
        out.clear();
        as_json(&mut out, &bytes).unwrap();
        let found: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(
            (&found["endpoints"][0]["body"], &found["endpoints"][0]["body_base64"]),
            (&json!(null), &json!("/w=="))
        );
        out.clear();
        as_json(&mut out, &[]).unwrap();
        assert_eq!(out, b"{\"endpoints\":[]}\n");
    }

    #[test]
    fn a_file_is_whole_or_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("e.toml");
        fs::write(&path, "before").unwrap();
        let failed: io::Result<()> = write_whole(&path, |out| {
            out.write_all(b"half")?;
            Err(io::Error::other("disk full"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "before");
        write_whole(&path, |out| out.write_all(b"after")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "after");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else is left");
        write_whole(Path::new("/dev/null"), |out| out.write_all(b"gone")).unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }
}
