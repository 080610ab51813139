// The page: reads /config.json, draws the dashboard, and leaves its findings in window.dashview.
import { useEffect, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { ThemeContext, createTheme } from '@grafana/data';
import { initPluginTranslations } from '@grafana/i18n';
import { GlobalStyles, PortalContainer } from '@grafana/ui';
import { setUpRegistries } from './fieldconfig.js';
import { layOut } from './layout.js';
import { Panel } from './panels.jsx';
import { interpolate, parseTimeRange, resolveVariables } from './variables.js';

const HEADER_HEIGHT = 56;
const GRID_UNIT = 38;
const GAP = 8;
const TIME_ZONE = 'utc';

// wanted: how many panels there are, or null while unknown; panels: what they reported so far.
window.dashview = { wanted: null, panels: [], errors: [] };
window.addEventListener('error', (event) => noteError(event.message));
window.addEventListener('unhandledrejection', (event) => noteError(String(event.reason)));

function noteError(message) {
  // Browsers say this when a layout settles in the next frame; nothing is wrong then.
  if (!message.startsWith('ResizeObserver loop')) {
    window.dashview.errors.push(message);
  }
}

function fail(error) {
  noteError(error.message);
  window.dashview.wanted = 0;
}

// Canvases are drawn once: the fonts have to be there before.
function loadFonts() {
  return Promise.all(['14px Inter', '500 14px Inter'].map((font) => document.fonts.load(font)));
}

async function loadDashboard() {
  await loadFonts();
  const { dashboard, from, to, variables, scrapeInterval } = await (await fetch('config.json')).json();
  const range = parseTimeRange(from ?? dashboard.time?.from ?? 'now-6h', to ?? dashboard.time?.to ?? 'now');
  const scope = await resolveVariables(dashboard.templating?.list ?? [], range, variables, scrapeInterval);
  const layout = layOut(dashboard, scope);
  return { dashboard, range, scope, layout, scrapeInterval };
}

function describeVariable(variable) {
  const text = variable.isAll ? 'All' : variable.values.join(' + ');
  return `${variable.label || variable.name}: ${text}`;
}

function Header({ dashboard, range, scope }) {
  const shown = Object.values(scope).filter((variable) => variable.shown && variable.hide !== 2);
  const format = (time) => time.toISOString().replace('T', ' ').slice(0, 19);
  return (
    <div
      style={{
        padding: '14px 12px',
        fontSize: 18,
        height: HEADER_HEIGHT,
        whiteSpace: 'nowrap',
        overflow: 'hidden',
      }}
    >
      {dashboard.title}
      <span style={{ fontSize: 12, opacity: 0.7, marginLeft: 20 }}>
        {[...shown.map(describeVariable), `${format(range.from)} to ${format(range.to)} UTC`].join('   |   ')}
      </span>
    </div>
  );
}

function RowHeader({ row, scope, top }) {
  const style = { position: 'absolute', left: 12, top, fontWeight: 500, lineHeight: `${GRID_UNIT - GAP}px` };
  return (
    <div style={style}>
      ▾ {interpolate(row.title, scope, { format: 'text' })}
    </div>
  );
}

function Dashboard({ dashboard, range, scope, layout, scrapeInterval }) {
  const column = (window.innerWidth - GAP) / 24;
  const top = (y) => HEADER_HEIGHT + y * GRID_UNIT;
  return (
    <div style={{ position: 'relative', height: top(layout.height) + GAP }}>
      <Header dashboard={dashboard} range={range} scope={scope} />
      {layout.rows.map(({ row, scope: rowScope, y }, index) => (
        <RowHeader key={index} row={row} scope={rowScope} top={top(y)} />
      ))}
      {layout.panels.map(({ panel, scope: panelScope, grid }, index) => {
        const width = grid.w * column - GAP;
        const height = grid.h * GRID_UNIT - GAP;
        const report = (findings) => {
          window.dashview.panels[index] = findings;
        };
        return (
          <div
            key={index}
            data-panel={index}
            style={{ position: 'absolute', left: GAP + grid.x * column, top: top(grid.y), width, height }}
          >
            <Panel
              panel={panel}
              scope={panelScope}
              range={range}
              timeZone={TIME_ZONE}
              scrapeInterval={scrapeInterval}
              width={width}
              height={height}
              report={report}
            />
          </div>
        );
      })}
    </div>
  );
}

function Page() {
  const [loaded, setLoaded] = useState(null);
  useEffect(() => {
    loadDashboard().then(setLoaded).catch(fail);
  }, []);
  useEffect(() => {
    if (loaded) {
      window.dashview.wanted = loaded.layout.panels.length;
    }
  }, [loaded]);
  return loaded && <Dashboard {...loaded} />;
}

// A panel said to be drawn must show something: a canvas, a picture or text.
function isBlank(element) {
  const content = element.querySelector('[data-testid="data-testid panel content"]') ?? element;
  const picture = content.querySelector('canvas, svg, [role="grid"]');
  return !content.innerText.trim() && !(picture && picture.getBoundingClientRect().width > 0);
}

window.dashview.collect = () => {
  const { panels, errors } = window.dashview;
  panels.forEach((findings, index) => {
    const element = document.querySelector(`[data-panel="${index}"]`);
    if (findings.status === 'ok' && isBlank(element)) {
      Object.assign(findings, { status: 'error', detail: 'nothing was drawn' });
    }
  });
  return { panels, errors };
};

window.dashview.isDone = () => {
  const { wanted, panels } = window.dashview;
  return wanted !== null && panels.filter(Boolean).length === wanted;
};

async function start() {
  setUpRegistries();
  await initPluginTranslations('dashview');
  createRoot(document.getElementById('root')).render(
    <ThemeContext.Provider value={createTheme({ colors: { mode: 'dark' } })}>
      <GlobalStyles />
      <PortalContainer />
      <Page />
    </ThemeContext.Provider>
  );
}

start().catch(fail);
