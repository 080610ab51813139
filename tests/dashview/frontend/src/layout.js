// Places panels on Grafana's grid of 24 columns: rows, repeats, and no vertical gaps.
const COLUMNS = 24;

const bottom = (grid) => grid.y + grid.h;

const byPosition = (a, b) => a.gridPos.y - b.gridPos.y || a.gridPos.x - b.gridPos.x;

// A section is a row header (or none) and the panels below it.
function splitSections(panels) {
  const sorted = [...panels].sort(byPosition);
  const sections = [{ row: null, panels: [] }];
  for (const panel of sorted) {
    if (panel.type === 'row') {
      sections.push({ row: panel, panels: [...(panel.panels ?? [])] });
    } else {
      sections.at(-1).panels.push(panel);
    }
  }
  return sections;
}

function repeatScopes(name, scope) {
  const variable = scope[name];
  if (!variable) {
    throw new Error(`cannot repeat by the unknown variable $${name}`);
  }
  return variable.values.map((value) => ({
    ...scope,
    [name]: { ...variable, values: [value], isAll: false, several: false },
  }));
}

function repeatSections(sections, scope) {
  return sections.flatMap((section) => {
    const scopes = section.row?.repeat ? repeatScopes(section.row.repeat, scope) : [scope];
    return scopes.map((each) => ({ ...section, scope: each }));
  });
}

function copyGrid(panel, index, count) {
  const grid = panel.gridPos;
  if (panel.repeatDirection === 'v') {
    return { ...grid, y: index * grid.h };
  }
  const perRow = Math.min(count, panel.maxPerRow ?? 4);
  const w = Math.floor(COLUMNS / perRow);
  return { w, h: grid.h, x: (index % perRow) * w, y: Math.floor(index / perRow) * grid.h };
}

// The copies of a panel (one, unless it repeats), with y counted from the top of the first.
function copiesOf(panel, scope) {
  if (!panel.repeat) {
    return [{ panel, scope, grid: { ...panel.gridPos, y: 0 } }];
  }
  const scopes = repeatScopes(panel.repeat, scope);
  return scopes.map((each, index) => ({ panel, scope: each, grid: copyGrid(panel, index, scopes.length) }));
}

// Drops the panels of a section one after the other as far up as those before them allow.
function stack(section, top) {
  const placed = [];
  for (const panel of [...section.panels].sort(byPosition)) {
    const copies = copiesOf(panel, section.scope);
    const isAbove = (other) =>
      copies.some(({ grid }) => grid.x < other.grid.x + other.grid.w && other.grid.x < grid.x + grid.w);
    const y = Math.max(top, ...placed.filter(isAbove).map(({ grid }) => bottom(grid)));
    placed.push(...copies.map((copy) => ({ ...copy, grid: { ...copy.grid, y: y + copy.grid.y } })));
  }
  return placed;
}

// Returns rows ({row, scope, y}), panels ({panel, scope, grid}) and the height in grid units. Collapsed rows are
// opened, so that their panels are checked too.
export function layOut(dashboard, scope) {
  const rows = [];
  const panels = [];
  let y = 0;
  for (const section of repeatSections(splitSections(dashboard.panels ?? []), scope)) {
    if (section.row) {
      rows.push({ row: section.row, scope: section.scope, y });
      y += 1;
    }
    const placed = stack(section, y);
    panels.push(...placed);
    y = Math.max(y, ...placed.map(({ grid }) => bottom(grid)));
  }
  return { rows, panels, height: y };
}
