//! Raw Ethernet on one interface, with the kernel's offload header before each frame.
//!
//! Without that header frames with unfinished checksums and segments larger than the MTU, which
//! is what virtual cables carry, would arrive broken.
#![expect(
    unsafe_code,
    reason = "packet sockets have no safe wrapper for their address and options"
)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::sys::socket::{MsgFlags, recv, send};

/// `struct virtio_net_hdr`.
pub(crate) const OFFLOAD_BYTES: usize = 10;
pub(crate) const FRAME_BYTES_MAX: usize = OFFLOAD_BYTES + 14 + 4 + (64 << 10);

const PACKET_VNET_HDR: libc::c_int = 15;
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
const RECEIVE_BUFFER: libc::c_int = 4 << 20;

pub(crate) struct PacketSocket {
    socket: OwnedFd,
}

impl PacketSocket {
    /// Everything that arrives at the interface of this name, in the calling thread's namespace.
    pub fn open(interface: &str) -> io::Result<Self> {
        let name = CString::new(interface)?;
        // SAFETY: `name` is a terminated string that outlives the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        if index == 0 {
            return Err(io::Error::last_os_error());
        }
        let all = (libc::ETH_P_ALL as u16).to_be();
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no pointers; the descriptor is checked before it is owned. Protocol 0: nothing
        // arrives before the socket is bound, so no frame of another interface is ever seen.
        let socket = unsafe {
            let fd = libc::socket(libc::AF_PACKET, kind, 0);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        set(&socket, libc::SOL_PACKET, PACKET_VNET_HDR, 1)?;
        set(&socket, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)?;
        set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER)?;
        // SAFETY: all-zero is a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = all;
        address.sll_ifindex = i32::try_from(index).map_err(io::Error::other)?;
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        let pointer = (&raw const address).cast();
        // SAFETY: the address is of the given length and outlives the call.
        if unsafe { libc::bind(socket.as_raw_fd(), pointer, length) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { socket })
    }

    /// One frame with its header; `None` when there is none now.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match recv(self.socket.as_raw_fd(), buffer, MsgFlags::empty()) {
            Ok(length) => Ok(Some(length)),
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// A frame the interface does not take now is lost.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        match send(self.socket.as_raw_fd(), frame, MsgFlags::empty()) {
            Ok(_) => Ok(()),
            Err(
                nix::Error::EAGAIN
                | nix::Error::ENOBUFS
                | nix::Error::EINTR
                | nix::Error::EMSGSIZE
                | nix::Error::EINVAL,
            ) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn set(
    socket: &OwnedFd,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    let pointer = (&raw const value).cast();
    // SAFETY: the value is of the given length and outlives the call.
    if unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, pointer, length) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
