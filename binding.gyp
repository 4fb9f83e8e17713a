{
  'variables': { 'warnings_are_errors%': 0 },
  'targets': [
    {
      'target_name': 'kvm_bridge',
      'includes': ['native/addon.gypi'],
    },
  ],
}
