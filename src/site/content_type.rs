//! Media types by file name.
//!
//! A table of our own, since `mime_guess` stands on `mime`, which is hardly kept any more. It has what browsers load and
//! what people download; everything else is `application/octet-stream`, which is always safe to say.

/// Extension in lower case and type, in the order of the extensions.
///
/// Text carries `charset=utf-8`; JSON has no such parameter (RFC 8259 §11), XML says it itself.
const TYPES: &[(&str, &str)] = &[
    ("7z", "application/x-7z-compressed"),
    ("aac", "audio/aac"),
    ("apk", "application/vnd.android.package-archive"),
    ("apng", "image/apng"),
    ("atom", "application/atom+xml"),
    ("avif", "image/avif"),
    ("bin", "application/octet-stream"),
    ("bmp", "image/bmp"),
    ("br", "application/octet-stream"),
    ("bz2", "application/x-bzip2"),
    ("c", "text/plain; charset=utf-8"),
    ("cjs", "text/javascript; charset=utf-8"),
    ("conf", "text/plain; charset=utf-8"),
    ("css", "text/css; charset=utf-8"),
    ("csv", "text/csv; charset=utf-8"),
    ("deb", "application/vnd.debian.binary-package"),
    ("doc", "application/msword"),
    ("docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    ("eot", "application/vnd.ms-fontobject"),
    ("epub", "application/epub+zip"),
    ("flac", "audio/flac"),
    ("geojson", "application/geo+json"),
    ("gif", "image/gif"),
    ("gz", "application/gzip"),
    ("h", "text/plain; charset=utf-8"),
    ("heic", "image/heic"),
    ("htm", "text/html; charset=utf-8"),
    ("html", "text/html; charset=utf-8"),
    ("ico", "image/vnd.microsoft.icon"),
    ("ics", "text/calendar; charset=utf-8"),
    ("jar", "application/java-archive"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("jsonld", "application/ld+json"),
    ("jxl", "image/jxl"),
    ("log", "text/plain; charset=utf-8"),
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("m4a", "audio/mp4"),
    ("m4v", "video/mp4"),
    ("map", "application/json"),
    ("md", "text/markdown; charset=utf-8"),
    ("mid", "audio/midi"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("mkv", "video/matroska"),
    ("mov", "video/quicktime"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("mpd", "application/dash+xml"),
    ("mpeg", "video/mpeg"),
    ("odp", "application/vnd.oasis.opendocument.presentation"),
    ("ods", "application/vnd.oasis.opendocument.spreadsheet"),
    ("odt", "application/vnd.oasis.opendocument.text"),
    ("oga", "audio/ogg"),
    ("ogg", "audio/ogg"),
    ("ogv", "video/ogg"),
    ("opus", "audio/ogg"),
    ("otf", "font/otf"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("ppt", "application/vnd.ms-powerpoint"),
    ("pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
    ("ps", "application/postscript"),
    ("py", "text/x-python; charset=utf-8"),
    ("rar", "application/vnd.rar"),
    ("rs", "text/plain; charset=utf-8"),
    ("rss", "application/rss+xml"),
    ("rtf", "application/rtf"),
    ("sh", "text/x-shellscript; charset=utf-8"),
    ("svg", "image/svg+xml"),
    ("tar", "application/x-tar"),
    ("tgz", "application/gzip"),
    ("tif", "image/tiff"),
    ("tiff", "image/tiff"),
    ("toml", "application/toml"),
    ("ts", "video/mp2t"),
    ("tsv", "text/tab-separated-values; charset=utf-8"),
    ("ttf", "font/ttf"),
    ("txt", "text/plain; charset=utf-8"),
    ("vcf", "text/vcard; charset=utf-8"),
    ("vtt", "text/vtt; charset=utf-8"),
    ("wasm", "application/wasm"),
    ("wav", "audio/wav"),
    ("weba", "audio/webm"),
    ("webm", "video/webm"),
    ("webmanifest", "application/manifest+json"),
    ("webp", "image/webp"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("xhtml", "application/xhtml+xml"),
    ("xls", "application/vnd.ms-excel"),
    ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    ("xml", "application/xml"),
    ("xsl", "application/xslt+xml"),
    ("xz", "application/x-xz"),
    ("yaml", "application/yaml"),
    ("yml", "application/yaml"),
    ("zip", "application/zip"),
    ("zst", "application/zstd"),
];

/// The table, and what a configuration adds to it or says otherwise.
#[derive(Debug, Default)]
pub(super) struct MediaTypes {
    /// By extension. A few: they are looked through.
    own: Vec<(String, String)>,
}

impl MediaTypes {
    pub fn new(own: Vec<(String, String)>) -> MediaTypes {
        MediaTypes { own }
    }

    /// The media type for a file of that name; letter case does not matter.
    pub fn of(&self, name: &[u8]) -> &str {
        let own = extension(name).and_then(|extension| {
            let is_it = |own: &&(String, String)| own.0.as_bytes().eq_ignore_ascii_case(extension);
            self.own.iter().find(is_it)
        });
        own.map_or_else(|| of(name), |(_, media_type)| media_type)
    }
}

/// What follows the last dot of the last segment.
fn extension(name: &[u8]) -> Option<&[u8]> {
    let file = name.rsplit(|&byte| byte == b'/').next().unwrap_or(name);
    let dot = file.iter().rposition(|&byte| byte == b'.')?;
    Some(&file[dot + 1..])
}

const UNKNOWN: &str = "application/octet-stream";

fn of(name: &[u8]) -> &'static str {
    let Some(extension) = extension(name) else { return UNKNOWN };
    let lower = extension.iter().map(u8::to_ascii_lowercase);
    match TYPES.binary_search_by(|(known, _)| known.bytes().cmp(lower.clone())) {
        Ok(at) => TYPES[at].1,
        Err(_) => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_can_be_searched() {
        // Sorted, and none twice.
        assert!(TYPES.is_sorted_by(|(one, _), (next, _)| one < next));
        for &(extension, media_type) in TYPES {
            assert_eq!(of(format!("a/b.c/x.{extension}").as_bytes()), media_type);
            assert!(!extension.bytes().any(|byte| byte.is_ascii_uppercase()), "{extension}");
            assert_eq!(media_type.starts_with("text/"), media_type.ends_with("; charset=utf-8"), "{media_type}");
        }
    }

    #[test]
    fn names() {
        assert_eq!(of(b"index.html"), "text/html; charset=utf-8");
        assert_eq!(of(b"A.JPG"), "image/jpeg");
        assert_eq!(of(b"a.tar.gz"), "application/gzip");
        for unknown in ["", "README", "a.html/README", "a.", "a.abcdefghijklmnop", "html", "a.\u{e4}"] {
            assert_eq!(of(unknown.as_bytes()), UNKNOWN, "{unknown}");
        }
    }
    #[test]
    fn added_types_win() {
        let own = [("gcode", "text/x-gcode"), ("html", "text/plain"), ("a-very-long-extension", "x/y"), ("ä", "x/z")];
        let types = MediaTypes::new(own.map(|(extension, media)| (extension.to_owned(), media.to_owned())).to_vec());
        for (name, media) in [
            ("a.GCODE", "text/x-gcode"),
            ("index.html", "text/plain"),
            ("a.a-very-long-extension", "x/y"),
            ("a.ä", "x/z"),
            ("a.css", "text/css; charset=utf-8"),
            ("gcode", UNKNOWN),
        ] {
            assert_eq!(types.of(name.as_bytes()), media, "{name}");
        }
        assert_eq!(MediaTypes::default().of(b"index.html"), "text/html; charset=utf-8");
        assert_eq!(types.of(b"a.\xff"), UNKNOWN);
    }
}
