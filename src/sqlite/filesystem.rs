//! What the file system says of a database: what is beside it, whether it may be written, and where
//! it lies.

use std::path::{Path, PathBuf};

use super::place::Place;
#[cfg(any(target_os = "linux", target_os = "android"))]
use super::place::place_of;

/// As many links as Linux follows.
#[cfg(unix)]
const MAX_LINKS: usize = 40;

/// Where the folder lies that holds `file`.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub fn place(file: &Path) -> Place {
    let Ok(status) = rustix::fs::statfs(folder(file)) else { return Place::Local };
    // The field's width and sign differ between platforms; the numbers have 32 bits.
    place_of(u32::try_from(i128::from(status.f_type) & 0xffff_ffff).unwrap_or_default())
}

/// Where the folder lies that holds `file`.
#[cfg(any(target_os = "macos", target_os = "ios"))]
pub fn place(file: &Path) -> Place {
    const MNT_LOCAL: u32 = 0x1000;
    match rustix::fs::statfs(folder(file)) {
        Ok(status) if status.f_flags & MNT_LOCAL == 0 => Place::Network,
        _ => Place::Local,
    }
}

/// Where the folder lies that holds `file`; a mapped drive resolves to another machine.
#[cfg(windows)]
pub fn place(file: &Path) -> Place {
    use std::path::{Component, Prefix};
    let is_elsewhere = std::fs::canonicalize(folder(file)).is_ok_and(|folder| {
        matches!(
            folder.components().next(),
            Some(Component::Prefix(prefix))
                if matches!(prefix.kind(), Prefix::UNC(..) | Prefix::VerbatimUNC(..))
        )
    });
    if is_elsewhere { Place::Network } else { Place::Local }
}

/// Other systems don't say.
#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_os = "macos",
    target_os = "ios",
    windows
)))]
pub fn place(_file: &Path) -> Place {
    Place::Local
}

/// The file that a name leads to, from the root and without links, as SQLite finds it: the -wal
/// lies beside that. Later connections must find the same file, though the working folder has
/// changed, a folder that the name passes through is gone, or a link leads elsewhere. And SQLite
/// takes a name that begins with `file:` for a URI.
#[cfg(unix)]
pub fn real_path(name: &Path) -> PathBuf {
    let mut path = absolute_path(name);
    for _ in 0..MAX_LINKS {
        // Without a slash at the end, which would be followed too.
        path = path.components().collect();
        if let Ok(found) = std::fs::canonicalize(&path) {
            return found;
        }
        // No file is there yet. Where a link leads to, SQLite makes it.
        match std::fs::read_link(&path) {
            Ok(target) => path = folder(&path).join(target),
            Err(_) => break,
        }
    }
    match (std::fs::canonicalize(folder(&path)), path.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => path,
    }
}

/// The file that a name leads to, from the root. Windows lets nobody move what is open.
#[cfg(not(unix))]
pub fn real_path(name: &Path) -> PathBuf {
    absolute_path(name)
}

fn absolute_path(name: &Path) -> PathBuf {
    std::path::absolute(name).unwrap_or_else(|_| name.to_owned())
}

/// Where SQLite has the WAL of a database.
pub fn wal_path(database: &Path) -> PathBuf {
    beside(database, "-wal")
}

/// Where SQLite has the memory that the connections to a database share: locks, and where in the
/// WAL a page is found.
pub fn shm_path(database: &Path) -> PathBuf {
    beside(database, "-shm")
}

fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Makes an empty file of this mode, whatever the umask, if there is none: SQLite would make one that
/// others may read. It gives the -wal and the -shm the database's mode. Why there can't be a file,
/// SQLite finds out itself.
#[cfg(unix)]
pub fn create(file: &Path, mode: u32) {
    use std::fs::{OpenOptions, Permissions};
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    // Only a file that nobody has open yet may be closed: that drops the locks on it.
    let created = OpenOptions::new().write(true).create_new(true).mode(mode).open(file);
    if let Ok(created) = created {
        let _ = created.set_permissions(Permissions::from_mode(mode));
    }
}

/// Elsewhere a file has no mode.
#[cfg(not(unix))]
pub fn create(_file: &Path, _mode: u32) {}

/// Gives a file a name that no file has. Fails where one has it.
pub fn rename_to_new(file: &Path, name: &Path) -> std::io::Result<()> {
    use std::io::ErrorKind::AlreadyExists;
    // A second name for the same file replaces nothing, on any system, unlike a renaming.
    match std::fs::hard_link(file, name) {
        Ok(()) => std::fs::remove_file(file),
        Err(error) if error.kind() == AlreadyExists => Err(error),
        // Not every file system has such names.
        Err(_) if name.exists() => Err(AlreadyExists.into()),
        Err(_) => std::fs::rename(file, name),
    }
}

/// Makes the names in a folder durable.
#[cfg(unix)]
pub fn sync_folder(folder: &Path) -> std::io::Result<()> {
    std::fs::File::open(folder)?.sync_all()
}

/// Windows has no such thing.
#[cfg(not(unix))]
pub fn sync_folder(_folder: &Path) -> std::io::Result<()> {
    Ok(())
}

/// Whether the file, which is there, may be read.
#[cfg(unix)]
pub fn may_read(file: &Path) -> bool {
    rustix::fs::access(file, rustix::fs::Access::READ_OK).is_ok()
}

/// Whether the file, which is there, may be read. Windows doesn't tell without trying.
#[cfg(not(unix))]
pub fn may_read(_file: &Path) -> bool {
    true
}

/// Whether files may be written and made here.
pub fn may_write(file: &Path) -> bool {
    why_not_writable(file).is_none()
}

/// What keeps the process from writing the file, or from making others beside it.
#[cfg(unix)]
pub fn why_not_writable(file: &Path) -> Option<&'static str> {
    use rustix::io::Errno;
    let refusal = |path| rustix::fs::access(path, rustix::fs::Access::WRITE_OK).err();
    match (refusal(file), refusal(folder(file))) {
        (Some(Errno::ROFS), _) | (_, Some(Errno::ROFS)) => {
            Some("its file system is mounted read-only")
        }
        (Some(_), _) => Some("the process may not write the file"),
        (None, Some(_)) => Some("the process may not write the file's folder"),
        (None, None) => None,
    }
}

/// What keeps the process from writing the file. Windows doesn't tell without trying.
#[cfg(not(unix))]
pub fn why_not_writable(_file: &Path) -> Option<&'static str> {
    Some("the process may not write the file")
}

/// Whether an error of the system's says that a file may not grow: by a quota, by its size, or as the
/// disk is full.
#[cfg(unix)]
pub fn is_out_of_room(system_error: i32) -> bool {
    use rustix::io::Errno;
    [Errno::DQUOT, Errno::FBIG, Errno::NOSPC]
        .iter()
        .any(|errno| errno.raw_os_error() == system_error)
}

/// Windows has an error of its own for all of these, which SQLite knows.
#[cfg(not(unix))]
pub fn is_out_of_room(_system_error: i32) -> bool {
    false
}

/// Whether this process, or all of them together, may open no more files. SQLite keeps the system's
/// reason to itself.
#[cfg(unix)]
pub fn is_out_of_handles() -> bool {
    use rustix::io::Errno;
    let opened = std::fs::File::open("/dev/null");
    let reason = opened.err().and_then(|error| Errno::from_io_error(&error));
    matches!(reason, Some(Errno::MFILE | Errno::NFILE))
}

/// Windows has no such limit.
#[cfg(not(unix))]
pub fn is_out_of_handles() -> bool {
    false
}

/// How much room there is on the folder's disk, for who isn't root.
#[cfg(unix)]
pub fn free_bytes(folder: &Path) -> Option<u64> {
    let status = rustix::fs::statvfs(folder).ok()?;
    Some(status.f_bavail.saturating_mul(status.f_frsize))
}

/// Unknown: it is seen when there is none.
#[cfg(not(unix))]
pub fn free_bytes(_folder: &Path) -> Option<u64> {
    None
}

/// The folder that holds `file`.
pub fn folder(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_folder_is_not_shared() {
        let folder = tempfile::tempdir().unwrap();
        assert_ne!(place(&folder.path().join("x.db")), Place::Network);
    }

    #[test]
    fn a_name_that_looks_like_a_uri_is_a_path() {
        let path = real_path(Path::new("file:a.db"));
        assert!(path.is_absolute() && path.ends_with("file:a.db"));
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_to_a_file_that_is_not_there_yet() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().canonicalize().unwrap();
        std::fs::create_dir(folder.join("data")).unwrap();
        std::os::unix::fs::symlink("data/a.db", folder.join("first")).unwrap();
        std::os::unix::fs::symlink("first", folder.join("second")).unwrap();
        assert_eq!(real_path(&folder.join("data/../second")), folder.join("data/a.db"));
        std::fs::write(folder.join("data/a.db"), "").unwrap();
        assert_eq!(real_path(&folder.join("second")), folder.join("data/a.db"));
        assert_eq!(real_path(&folder.join("second/")), folder.join("data/a.db"));
    }

    #[cfg(unix)]
    #[test]
    fn links_in_a_circle_end() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("a");
        std::os::unix::fs::symlink("a", &link).unwrap();
        assert_eq!(real_path(&link).file_name(), link.file_name());
    }

    #[test]
    fn a_bare_name_lies_in_the_working_folder() {
        assert_eq!(folder(Path::new("x.db")), Path::new("."));
        assert_eq!(folder(Path::new("a/x.db")), Path::new("a"));
    }
}
