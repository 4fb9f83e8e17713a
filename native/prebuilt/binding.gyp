{
  # The addon as the package ships it: loads with glibc 2.28, and brings the C++ library along (see ../prebuild.mjs).
  'variables': { 'warnings_are_errors%': 0 },
  'targets': [
    {
      'target_name': 'kvm_bridge',
      'includes': ['../addon.gypi'],
      'sources': ['glibc_2_28.cc'],
      'ldflags': [
        '-static-libstdc++',
        '-static-libgcc',
        '-Wl,--version-script=<(module_root_dir)/exports.map',
        '-Wl,--gc-sections',
        '-Wl,--strip-all',
        # Up to glibc 2.33 these hold what later ones have in libc.so.6; which still has them, empty.
        '-Wl,--no-as-needed,-l:libpthread.so.0,-l:librt.so.1,--as-needed',
      ],
    },
  ],
}
