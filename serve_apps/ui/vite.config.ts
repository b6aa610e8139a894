import { defineConfig } from "vite";

// One page, one script and one style sheet from the same origin: what the page's content policy allows.
export default defineConfig({
  base: "/",
  build: {
    outDir: "dist",
    target: "es2023",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  server: { proxy: { "/api": "http://127.0.0.1:8000" } },
});
