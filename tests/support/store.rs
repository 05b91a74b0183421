//! A store of a test's own, and a look into it past the writer.

use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};

use ringprobe::writer::{StoreUrl, WriterOptions, block_on};
use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

use super::proxy::Proxy;

pub(crate) trait TestStore: Sync {
    fn url(&self) -> &StoreUrl;

    /// Each value as text, null as the empty text.
    fn query(&self, sql: &str) -> Vec<Vec<String>>;

    /// An expression for `ts` as µs.
    fn ts_us(&self) -> &'static str;

    fn execute(&self, sql: &str) {
        self.query(sql);
    }

    fn options(&self) -> WriterOptions {
        WriterOptions { store: Some(self.url().clone()), ..WriterOptions::default() }
    }

    /// Of an endpoint's state: `ts` and `since` in µs, and the status.
    fn state(&self, endpoint: i32) -> (i64, i64, i16) {
        let (ts, since) = (self.ts_us(), self.ts_us().replace("ts", "since"));
        let rows = self.query(&format!(
            "SELECT {ts}, {since}, status FROM endpoint_state WHERE endpoint_id = {endpoint}"
        ));
        (rows[0][0].parse().unwrap(), rows[0][1].parse().unwrap(), rows[0][2].parse().unwrap())
    }
}

/// A database, dropped at the end.
pub(crate) struct Postgres {
    server: Config,
    database: String,
    url: StoreUrl,
}

impl Postgres {
    /// In the cluster that `scripts/test` has started.
    pub(crate) fn new(name: &str) -> Self {
        let Ok(dsn) = std::env::var("RINGPROBE_TEST_POSTGRES") else {
            panic!("RINGPROBE_TEST_POSTGRES is not set: run scripts/test, which starts a PostgreSQL");
        };
        Self::in_cluster(&dsn, name)
    }

    pub(crate) fn in_cluster(dsn: &str, name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // PostgreSQL cuts names at 63 bytes.
        let short = &name[..name.len().min(30)];
        let database = format!("test_{}_{number}_{short}", std::process::id());
        let server = Config::from_str(dsn).expect("RINGPROBE_TEST_POSTGRES is a PostgreSQL URL");
        run(&server, &format!("CREATE DATABASE {database}"));
        let StoreUrl::Postgres(url) = dsn.parse().expect("a URL that ringprobe takes") else {
            panic!("RINGPROBE_TEST_POSTGRES is not a PostgreSQL URL")
        };
        let url = StoreUrl::Postgres(Box::new(url.with_database(&database)));
        Self { server, database, url }
    }

    fn config(&self) -> Config {
        self.server.clone().dbname(&self.database).clone()
    }

    /// Where the server listens.
    pub(crate) fn address(&self) -> String {
        let host = match &self.server.get_hosts()[0] {
            tokio_postgres::config::Host::Tcp(host) => host.clone(),
            tokio_postgres::config::Host::Unix(path) => panic!("{}: a TCP address is needed", path.display()),
        };
        format!("{host}:{}", self.server.get_ports().first().unwrap_or(&5432))
    }

    /// The same database by way of a proxy.
    pub(crate) fn url_through(&self, proxy: &Proxy) -> StoreUrl {
        let user = self.server.get_user().unwrap_or("postgres");
        let url = format!("postgres://{user}@127.0.0.1:{}/{}", proxy.port(), self.database);
        url.parse().unwrap()
    }

    /// Makes new sessions read-only, or no longer, and ends the existing ones.
    pub(crate) fn read_only(&self, on: bool) {
        run(
            &self.server,
            &format!("ALTER DATABASE {} SET default_transaction_read_only = {on}", self.database),
        );
        self.disconnect_all();
    }

    pub(crate) fn disconnect_all(&self) {
        run(
            &self.server,
            &format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'",
                self.database
            ),
        );
    }
}

impl TestStore for Postgres {
    fn url(&self) -> &StoreUrl {
        &self.url
    }

    fn query(&self, sql: &str) -> Vec<Vec<String>> {
        run(&self.config(), sql)
    }

    fn ts_us(&self) -> &'static str {
        "(extract(epoch FROM ts) * 1000000)::bigint"
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // A test that stops the server may have failed while it was down.
        let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.database);
        let _ = block_on(async {
            let (client, connection) = self.server.connect(NoTls).await?;
            tokio::spawn(connection);
            client.batch_execute(&drop).await
        });
    }
}

fn run(config: &Config, sql: &str) -> Vec<Vec<String>> {
    let messages = block_on(async {
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        client.simple_query(sql).await
    });
    let messages = messages.unwrap().unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let rows = messages.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|column| row.get(column).unwrap_or("").to_owned()).collect())
        }
        _ => None,
    });
    rows.collect()
}

/// A file, removed at the end.
pub(crate) struct Sqlite {
    directory: tempfile::TempDir,
    url: StoreUrl,
}

impl Sqlite {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = StoreUrl::Sqlite(directory.path().join("test.db"));
        Self { directory, url }
    }

    pub(crate) fn connection(&self) -> rusqlite::Connection {
        let connection = rusqlite::Connection::open(self.directory.path().join("test.db")).unwrap();
        connection.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
        connection
    }
}

impl TestStore for Sqlite {
    fn url(&self) -> &StoreUrl {
        &self.url
    }

    fn query(&self, sql: &str) -> Vec<Vec<String>> {
        use rusqlite::types::ValueRef;
        let connection = self.connection();
        let mut statement = connection.prepare(sql).unwrap();
        let columns = statement.column_count();
        let text = |value: ValueRef<'_>| match value {
            ValueRef::Null => String::new(),
            ValueRef::Integer(value) => value.to_string(),
            ValueRef::Real(value) => value.to_string(),
            ValueRef::Text(value) | ValueRef::Blob(value) => String::from_utf8_lossy(value).into_owned(),
        };
        let mut rows = statement.query([]).unwrap();
        let mut found = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            found.push((0..columns).map(|column| text(row.get_ref(column).unwrap())).collect());
        }
        found
    }

    fn ts_us(&self) -> &'static str {
        "ts"
    }
}
