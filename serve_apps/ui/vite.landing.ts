import { defineConfig } from "vite";

// A folder of files for any web server, under any path: nothing in it asks another host.
export default defineConfig({
  root: "landing",
  base: "./",
  build: {
    outDir: "../../../build/landing",
    emptyOutDir: true,
    target: "es2023",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
});
