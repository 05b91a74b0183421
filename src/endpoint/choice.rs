//! Fields that are one word out of a few: each word is here once, and what it means.
//!
//! Invariant: [`FromStr`] and `name` are inverses, and what is no such word is answered with all that are.

use std::fmt;
use std::str::FromStr;

/// Declares a choice with its words, so that parser, printer and message cannot drift apart.
macro_rules! choice {
    ($(#[$meta:meta])* $enum:ident { $($(#[$doc:meta])* $variant:ident $name:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $enum { $($(#[$doc])* $variant,)+ }

        impl $enum {
            /// Every one, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// As in the endpoint file, in the table and in JSON.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }

        impl FromStr for $enum {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text { $($name => Ok(Self::$variant),)+ _ => Err(no_such(text, &[$($name,)+])) }
            }
        }

        impl fmt::Display for $enum {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

choice! {
    /// Whether each probe opens a connection of its own.
    #[derive(Default)]
    Connection {
        /// A new connection for each probe: what a first-time visitor sees.
        #[default]
        Fresh "fresh",
        /// One connection, kept alive between probes; opened again when it was lost.
        Reuse "reuse",
    }
}

choice! {
    /// Who closes a fresh connection when the probe is done.
    #[derive(Default)]
    Close {
        /// The origin, which then has the TIME_WAIT; we do if it does not within a moment.
        #[default]
        Peer "peer",
        /// We do, with FIN, at once.
        Fin "fin",
        /// We do, with RST: no port of ours is kept waiting, and origins may log an error.
        Rst "rst",
    }
}

choice! {
    /// What is to be found.
    #[derive(Default)]
    Expect {
        /// Every expectation holds.
        #[default]
        Up "up",
        /// The probe fails: an endpoint that must not be reachable, a certificate that must be refused.
        Down "down",
    }
}

choice! {
    /// Where the time to resolve a name goes.
    #[derive(Default)]
    Dns {
        /// An answer is used for as long as its TTL says, and renewed before: probes do not wait.
        #[default]
        Cached "cached",
        /// Every probe asks, and the answer's time is a phase of it.
        Every "every",
    }
}

choice! {
    /// How many of a name's addresses are probed.
    #[derive(Default)]
    Expand {
        /// One of them.
        #[default]
        One "one",
        /// Each, as a series of its own.
        All "all",
    }
}

choice! {
    /// Which addresses of a name may be connected to.
    #[derive(Default)]
    Family {
        /// Any, in the order of the answers.
        #[default]
        Any "any",
        /// IPv4, or IPv6 if there is none.
        Prefer4 "prefer4",
        /// IPv6, or IPv4 if there is none.
        Prefer6 "prefer6",
        /// IPv4 only.
        Only4 "4",
        /// IPv6 only.
        Only6 "6",
    }
}

choice! {
    /// A content coding (RFC 9110, section 8.4.1) that we can decode.
    Coding {
        /// RFC 1952.
        Gzip "gzip",
        /// RFC 1950, and what some send instead: RFC 1951 bare.
        Deflate "deflate",
        /// RFC 7932.
        Brotli "br",
    }
}

choice! {
    /// A version of HTTP, as a response's status line has it.
    HttpVersion {
        /// HTTP/1.0.
        Http10 "1.0",
        /// HTTP/1.1.
        Http11 "1.1",
    }
}

choice! {
    /// In which form the body patterns see the body.
    #[derive(Default)]
    Charset {
        /// The bytes as they are, after decoding of content codings.
        #[default]
        Raw "raw",
        /// UTF-8, transcoded from the charset that the response declares.
        Auto "auto",
    }
}

choice! {
    /// A version of TLS that can be had.
    TlsVersion {
        /// RFC 5246.
        Tls12 "1.2",
        /// RFC 8446.
        Tls13 "1.3",
    }
}

fn no_such(text: &str, words: &[&str]) -> String {
    match words {
        [one, other] => format!("{text:?} is neither {one:?} nor {other:?}"),
        _ => {
            let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
            format!("{text:?} is none of {}", words.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<Choice>(all: &[Choice], words: &[&str])
    where
        Choice: Copy + fmt::Debug + fmt::Display + FromStr<Err = String> + PartialEq,
    {
        let shown: Vec<String> = all.iter().map(Choice::to_string).collect();
        assert_eq!(shown, words);
        for (choice, word) in all.iter().zip(words) {
            assert_eq!(word.parse::<Choice>(), Ok(*choice));
            assert!(word.to_uppercase().parse::<Choice>().is_err() || word.to_uppercase() == *word);
        }
        let refused = "other".parse::<Choice>().unwrap_err();
        assert!(words.iter().all(|word| refused.contains(&format!("{word:?}"))), "{refused}");
    }

    #[test]
    fn words_are_read_as_they_are_shown() {
        check(Connection::ALL, &["fresh", "reuse"]);
        check(Close::ALL, &["peer", "fin", "rst"]);
        check(Expect::ALL, &["up", "down"]);
        check(Dns::ALL, &["cached", "every"]);
        check(Expand::ALL, &["one", "all"]);
        check(Family::ALL, &["any", "prefer4", "prefer6", "4", "6"]);
        check(Coding::ALL, &["gzip", "deflate", "br"]);
        check(HttpVersion::ALL, &["1.0", "1.1"]);
        check(Charset::ALL, &["raw", "auto"]);
        check(TlsVersion::ALL, &["1.2", "1.3"]);
    }
}
