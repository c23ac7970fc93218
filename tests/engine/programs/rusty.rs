//! Threads that read a tree and write files of their own through Rust's standard library.
//!
//!     rusty TREE DIRECTORY

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, IoSlice, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{symlink, FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;

fn files(directory: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files(&entry.path(), found)?;
        } else {
            found.push(entry.path());
        }
    }
    Ok(())
}

fn work(number: usize, names: &[PathBuf], directory: &Path) -> io::Result<u64> {
    let own = directory.join(number.to_string());
    let mut out = OpenOptions::new().read(true).append(true).create(true).open(&own)?;
    let mut lines = 0;
    for name in names {
        lines += BufReader::new(File::open(name)?).lines().count() as u64;
        io::copy(&mut File::open(name)?, &mut out)?;
        out.write_vectored(&[IoSlice::new(b"one"), IoSlice::new(b"and another")])?;
    }
    out.seek(SeekFrom::Start(10))?;
    out.read_exact(&mut [0; 100])?;
    out.read_exact_at(&mut [0; 50], 1000)?;
    out.set_len(5000)?;
    out.sync_data()?;
    let copy = directory.join(format!("{number}.copy"));
    fs::copy(&own, &copy)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o600))?;
    symlink(&copy, directory.join(format!("{number}.link")))?;
    fs::hard_link(&own, directory.join(format!("{number}.hard")))?;
    File::create(&copy)?.write_all_at(b"somewhere", 12345)?;
    fs::rename(&copy, directory.join(format!("{number}.done")))?;
    assert!(fs::metadata(&copy).is_err());
    Ok(lines)
}

fn main() -> io::Result<()> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let (tree, directory) = (&arguments[0], &arguments[1]);
    let mut names = Vec::new();
    files(tree, &mut names)?;
    fs::create_dir_all(directory)?;
    let lines: u64 = thread::scope(|scope| {
        let threads: Vec<_> = names
            .chunks(names.len().div_ceil(4))
            .enumerate()
            .map(|(number, part)| scope.spawn(move || work(number, part, directory)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap().unwrap()).sum()
    });
    println!("{lines}");
    fs::remove_dir_all(directory)
}
