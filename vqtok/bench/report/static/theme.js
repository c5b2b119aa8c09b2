// Light or dark: what the system prefers until the button is pressed; remembered where that is allowed.
function setUpTheme() {
  const root = document.documentElement;
  const button = document.getElementById('theme');
  const system = matchMedia('(prefers-color-scheme: dark)');
  const stored = remembered();
  if (stored) root.dataset.theme = stored;
  const isDark = () => (root.dataset.theme || (system.matches ? 'dark' : 'light')) === 'dark';
  const show = () => button.setAttribute('aria-pressed', String(isDark()));
  button.addEventListener('click', () => {
    root.dataset.theme = isDark() ? 'light' : 'dark';
    try { localStorage.setItem('vqtok-theme', root.dataset.theme); } catch { /* not from here */ }
    show();
  });
  system.addEventListener('change', show);
  show();
}

function remembered() {
  try {
    const theme = localStorage.getItem('vqtok-theme');
    return theme === 'dark' || theme === 'light' ? theme : null;
  } catch {
    return null;
  }
}

setUpTheme();
