//! Where a file lies, as far as that decides whether a WAL is safe there. Pure.
//!
//! The -shm of a WAL is shared memory, and memory isn't shared between machines: on a network, or on
//! disks that several machines mount, WAL mode corrupts a database.

/// See the module's documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On a disk of this machine's, or in its memory.
    Local,
    /// On a network, or where it may be on one: FUSE doesn't say.
    Network,
    /// On a file system of this number, which isn't known here.
    Unknown(u32),
}

/// The numbers that Linux' `statfs` has for file systems of several machines.
const NETWORK: [u32; 25] = [
    0x6969,      // NFS
    0x517b,      // SMB
    0xff53_4d42, // CIFS
    0xfe53_4d42, // SMB 2
    0x0102_1997, // 9P, as WSL, gVisor and QEMU have it
    0x6573_5546, // FUSE, and virtiofs
    0x5346_414f, // AFS
    0x6b41_4653, // the kernel's own AFS
    0x00c3_6400, // CephFS
    0x0bd0_0bd0, // Lustre
    0x4750_4653, // GPFS
    0x1983_0326, // BeeGFS
    0x786f_4256, // VirtualBox' shared folders
    0xbacb_acbc, // VMware's
    0x7c7c_6673, // Parallels'
    0x00c0_ffee, // User-mode Linux' hostfs
    0x7375_7245, // Coda
    0x564c,      // NCP
    0x0116_1970, // GFS2
    0x7461_636f, // OCFS2
    0x2003_0528, // OrangeFS
    0xaad7_aaea, // PanFS
    0xbeef_dead, // StorNext
    0x0131_11a8, // IBRIX
    0x6163_6673, // ACFS
];

/// Those of one machine's file systems.
const LOCAL: [u32; 31] = [
    0xef53,      // ext2 to ext4
    0x5846_5342, // XFS
    0x9123_683e, // Btrfs
    0x2fc1_2fc1, // ZFS
    0xf2f5_2010, // F2FS
    0xca45_1a4e, // bcachefs
    0x794c_7630, // overlayfs, as containers have it
    0x6175_6673, // aufs
    0x0102_1994, // tmpfs
    0x8584_58f6, // ramfs
    0x3153_464a, // JFS
    0x5265_4973, // ReiserFS
    0x3434,      // NILFS
    0x4d44,      // FAT
    0x2011_bab0, // exFAT
    0x5346_544e, // NTFS
    0x7366_746e, // NTFS3
    0x482b,      // HFS+
    0x4244,      // HFS
    0x4253_504e, // APFS
    0x0001_1954, // UFS
    0xf15f,      // eCryptfs
    0x7371_7368, // SquashFS
    0xe0f5_e1e2, // EROFS
    0x9660,      // ISO 9660
    0x1501_3346, // UDF
    0x2405_1905, // UBIFS
    0x72b6,      // JFFS2
    0x137f,      // Minix
    0x5346_4846, // WSL 1
    0xa501_fcf5, // VxFS
];

/// Where the file systems of this number are.
pub fn place_of(number: u32) -> Place {
    if NETWORK.contains(&number) {
        Place::Network
    } else if LOCAL.contains(&number) {
        Place::Local
    } else {
        Place::Unknown(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_of_one_table() {
        assert!(NETWORK.iter().all(|number| !LOCAL.contains(number)));
        assert_eq!(place_of(0x6969), Place::Network);
        assert_eq!(place_of(0xef53), Place::Local);
        assert_eq!(place_of(0x1234_5678), Place::Unknown(0x1234_5678));
    }

    #[test]
    fn no_number_is_listed_twice() {
        for table in [&NETWORK[..], &LOCAL[..]] {
            let mut sorted = table.to_vec();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), table.len());
        }
    }
}
