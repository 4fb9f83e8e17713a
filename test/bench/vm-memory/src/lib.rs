//! Guest memory as a Rust VMM would read it: rust-vmm's vm-memory, each region a mapping of its own.
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Makes the memory: `count` regions of `size` bytes at the given addresses, filled with `content`, which is as long as all of them.
///
/// # Safety
/// `gpas` has `count` elements, `content` `count * size` bytes.
#[no_mangle]
pub unsafe extern "C" fn vm_memory_new(
    gpas: *const u64,
    count: u32,
    size: u64,
    content: *const u8,
) -> *mut GuestMemoryMmap<()> {
    let gpas = std::slice::from_raw_parts(gpas, count as usize);
    let ranges: Vec<_> = gpas.iter().map(|&gpa| (GuestAddress(gpa), size as usize)).collect();
    let Ok(memory) = GuestMemoryMmap::<()>::from_ranges(&ranges) else { return std::ptr::null_mut() };
    for (index, &gpa) in gpas.iter().enumerate() {
        let bytes = std::slice::from_raw_parts(content.add(index * size as usize), size as usize);
        if memory.write_slice(bytes, GuestAddress(gpa)).is_err() {
            return std::ptr::null_mut();
        }
    }
    Box::into_raw(Box::new(memory))
}

/// Reads u64 at `n` of the addresses, over and over again; `sum` gets their sum.
///
/// # Safety
/// `memory` is from `vm_memory_new`, `gpas` has `gpa_count` elements.
#[no_mangle]
pub unsafe extern "C" fn vm_memory_read_u64(
    memory: *const GuestMemoryMmap<()>,
    gpas: *const u64,
    gpa_count: u32,
    n: i64,
    sum: *mut u64,
) -> i32 {
    let memory = &*memory;
    let gpas = std::slice::from_raw_parts(gpas, gpa_count as usize);
    let mut total = 0u64;
    let mut at = 0;
    for _ in 0..n {
        match memory.read_obj::<u64>(GuestAddress(gpas[at])) {
            Ok(value) => total = total.wrapping_add(value),
            Err(_) => return -1,
        }
        at += 1;
        if at == gpas.len() {
            at = 0;
        }
    }
    *sum = total;
    0
}

/// # Safety
/// `memory` is from `vm_memory_new`, and not used after.
#[no_mangle]
pub unsafe extern "C" fn vm_memory_free(memory: *mut GuestMemoryMmap<()>) -> i32 {
    drop(Box::from_raw(memory));
    0
}
