{
  # The addon as the package ships it: loads with glibc 2.28, or with musl, and brings along what it needs of the C++ library
  # (see ../prebuild.mjs).
  'variables': { 'warnings_are_errors%': 0, 'musl%': 0 },
  'targets': [
    {
      'target_name': 'kvm_bridge',
      'includes': ['../addon.gypi'],
      'sources': ['cxx_runtime.cc'],
      # On 64 bits it changes nothing but names, which musl lacks: open64 for open.
      'defines!': ['_FILE_OFFSET_BITS=64'],
      'ldflags': [
        '-Wl,--version-script=<(module_root_dir)/exports.map',
        '-Wl,--gc-sections',
        '-Wl,--strip-all',
      ],
      'conditions': [
        ['musl==1', {
          # Musl's names are in every process that has it: nothing is to be loaded with the addon.
          'ldflags': ['-nostdlib'],
          'libraries': ['-l:libstdc++.a', '-lgcc'],
        }, {
          'sources': ['glibc_2_28.cc'],
          'ldflags': [
            '-static-libstdc++',
            '-static-libgcc',
            # Up to glibc 2.33 these hold what later ones have in libc.so.6; which still has them, empty.
            '-Wl,--no-as-needed,-l:libpthread.so.0,-l:librt.so.1,--as-needed',
          ],
        }],
      ],
    },
  ],
}
