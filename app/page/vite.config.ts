import { defineConfig } from "vite";

// `npm run dev` shows the page with a studio behind it: `flaxgen studio --port 7860`.
const STUDIO = "http://127.0.0.1:7860";

export default defineConfig({
  server: { proxy: { "/api": { target: STUDIO, changeOrigin: true } } },
  build: {
    outDir: "../../flaxgen/app/page",
    emptyOutDir: true,
    assetsInlineLimit: 0, // the server's content security policy allows files of its own, no data: scripts
    modulePreload: { polyfill: false },
  },
});
